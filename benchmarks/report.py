"""What came out: results as JSON, a summary for a screen, and tables."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from importlib import metadata
from inspect import getdoc
from pathlib import Path
from typing import NamedTuple

from benchmarks import FREE_THREADED
from benchmarks.engine import Figure
from benchmarks.engine import Figures
from benchmarks.peers import FAIR
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import PEERS
from benchmarks.peers import PROXYSTORE
from benchmarks.workloads import Effort
from benchmarks.workloads import WORKLOADS

NAMES = [peer.name for peer in PEERS]
# Pythons that tables have no column for.
OLD = ('3.11', '3.12')
# Pythons where `with` on a Lock has two speeds.
TWO_SPEEDS = (*OLD, '3.13')

CALLS = [f'price/{name}' for name in ('get', 'set', 'evict', 'put')]
BATCHES = [f'batches/{name} of 1,000' for name in ('get_batch', 'put_batch')]
THREADS = [
    f'throughput/{threads} threads, {percent} % writes'
    for threads in (8, 32)
    for percent in (0, 10, 50, 100)
]
STORE = [
    f'store/{name}'
    for name in (
        '1 thread, 1 Store',
        '8 threads, 1 Store',
        '8 threads, 8 Stores',
    )
]
WAITS = [
    f'waits/{mix}: {who} {part}'
    for part in ('p99', 'longest')
    for mix in ('8 + 1', '8 + 8')
    for who in ('read', 'write')
]
TORN = 'torn/torn states'
SCREEN = [*CALLS, *BATCHES, *THREADS[:4], *WAITS[:2], *STORE[::2], TORN]

README = [
    ('8 threads with a `Store` each', STORE[2], LOCK),
    ('8 threads with a `Store` each', STORE[2], PROXYSTORE),
    ('8 threads, 10 % writes', THREADS[1], LOCK),
    ('`get`', CALLS[0], LOCK),
    ('`set`', CALLS[1], LOCK),
    ('`put`', CALLS[3], LOCK),
    ('`get`', CALLS[0], PROXYSTORE),
]


class Results(NamedTuple):
    """All that a run found out, and where and how it was measured."""

    about: dict[str, str]
    figures: Figures

    @property
    def tag(self) -> str:
        """The Python, such as 3.14 or 3.13t."""
        return self.about['tag']

    def to_json(self) -> str:
        """Write everything for programs, with a line for each number."""
        text = json.dumps(self._asdict(), allow_nan=False)
        text = text.replace('"figures": {', '"figures": {\n')
        return text.replace(']}, "', ']},\n"')

    @classmethod
    def from_file(cls, path: Path) -> Results:
        """Read what `to_json()` wrote, or raise ValueError or OSError."""
        text = path.read_text(encoding='utf-8')
        try:
            about, figures = json.loads(text).values()
            for peers in figures.values():
                peers |= {name: Figure(*peers[name]) for name in peers}
            return cls(about, figures)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f'{path} is not a result of python -m benchmarks: {error!r}',
            ) from error

    def to_page(self) -> str:
        """Write all figures."""
        about = ', '.join(f'{k}: {v}' for k, v in self.about.items())
        parts = [f'## {self.about["python"]}', about]
        for workload, places in _by_workload(self.figures):
            cases, unit, _ = WORKLOADS[workload]
            rows = [
                [_label(place), *(self.spread(place, peer) for peer in NAMES)]
                for place in places
            ]
            parts.append(
                f'**{workload.capitalize()}**, {unit}: {getdoc(cases)}'
            )
            parts.append(_table(['', *NAMES], rows))
        return '\n\n'.join(parts) + '\n'

    def spread(self, place: str, peer: str) -> str:
        """Write a figure: the median, the least and the most."""
        figure = self.figures.get(place, {}).get(peer)
        return '{} ({}-{})'.format(*map(number, figure)) if figure else '-'

    def value(self, place: str, peer: str) -> float:
        """Get what a peer is compared by, in most cases the median."""
        median, least, most = self.figures[place][peer]
        if place.endswith('longest'):
            return most
        if peer == LOCK and self.tag in TWO_SPEEDS:
            return most if _is_rate(place) else least
        return median

    def ratio(self, place: str, rival: str, lost: str = '**{}**') -> str:
        """Write how many times better ours is than a rival, or worse."""
        if not {OURS, rival} <= {*self.figures.get(place, {})}:
            return '-'
        ratio = self.value(place, OURS) / self.value(place, rival)
        ratio = ratio if _is_rate(place) else 1 / ratio
        return (lost if round(ratio, 2) < 1 else '{}').format(number(ratio))

    def comparison(self, place: str, rival: str) -> str:
        """Write the ratio, and with the longest waits both in milliseconds."""
        ratio = self.ratio(place, rival)
        if ratio == '-' or not place.endswith('longest'):
            return ratio
        values = (self.value(place, peer) / 1000 for peer in (OURS, rival))
        return '{} ({} and {} ms)'.format(ratio, *map(number, values))


def environment(effort: Effort) -> dict[str, str]:
    """Describe where and how this measures."""
    gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    build = 'free-threaded' if FREE_THREADED else 'default'
    found = {it.name: it.version for it in metadata.distributions()}
    packages = 'readerwriterlock', 'proxystore', 'fasteners', 'cereggii'
    python = f'{platform.python_implementation()} {platform.python_version()}'
    return {
        'tag': '{}.{}'.format(*sys.version_info) + 't' * FREE_THREADED,
        'python': f'{python} ({build}, GIL {"on" if gil else "off"})',
        'date': f'{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC',
        'platform': platform.platform(),
        'cpus': str(os.cpu_count()),
        'packages': ', '.join(
            f'{p} {found.get(p, "(none)")}' for p in packages
        ),
        'effort': ', '.join(f'{k} {v:,}' for k, v in effort._asdict().items()),
    }


def number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100 or not value:
        return f'{value:,.0f}'
    if value >= 10:
        return f'{value:.1f}'
    return f'{value:.2f}' if value >= 0.1 else f'{value:.2g}'


def summary(run: Results) -> str:
    """Write what matters most in lines that fit a screen."""
    lines = [
        f'{run.about["python"]}: times better than each (!: worse)',
        _line('', *NAMES),
    ]
    # Or else only a workload that is not among these was measured.
    places = [p for p in SCREEN if p in run.figures] or [*run.figures]
    for workload, some in _by_workload(places):
        lines.append(f'{workload}, {WORKLOADS[workload].unit}')
        for place in some:
            medians = {
                peer: number(figure.median)
                for peer, figure in run.figures[place].items()
            }
            others = [
                medians.get(peer, '-')
                if place == TORN
                else run.ratio(place, peer, '{}!')
                for peer in NAMES[1:]
            ]
            lines.append(_line(_label(place), medians[OURS], *others))
    return '\n'.join(lines)


def _line(label: str, *texts: str) -> str:
    widths = (7, 7, 11, 10, 11, 11)
    return f'{label[:23]:23}' + ''.join(
        f'{text:>{width}}' for text, width in zip(texts, widths)
    )


def _label(place: str) -> str:
    return place.partition('/')[2]


def _by_workload(
    places: Iterable[str],
) -> Iterator[tuple[str, Iterator[str]]]:
    return itertools.groupby(places, lambda place: place.partition('/')[0])


def _is_rate(place: str) -> bool:
    """Tell if more is better."""
    return WORKLOADS[place.partition('/')[0]].unit == 'k/s'


def newest_first(runs: Iterable[Results]) -> list[Results]:
    """Sort runs by their Python, free-threaded builds behind the others."""
    return sorted(runs, key=lambda r: ('t' not in r.tag, r.tag), reverse=True)


def pages(runs: Iterable[Results]) -> dict[str, str]:
    """Write a page of all figures, and sections that other pages include."""
    head = '# All figures\n\nMedian of all processes (least-most).\n\n'
    runs = newest_first(runs)
    return {
        'figures.md': head + '\n'.join(run.to_page() for run in runs),
        'tables.md': '\n'.join(
            f'<!-- --8<-- [start:{name}] -->\n\n{text}\n\n'
            f'<!-- --8<-- [end:{name}] -->\n'
            for name, text in sections(runs).items()
        ),
    }


def sections(runs: Sequence[Results]) -> dict[str, str]:
    """Write what pages include, from runs of several Pythons."""
    new = [run for run in runs if run.tag not in OLD]
    old = [run for run in runs if run.tag in OLD]
    against = {LOCK: '`Lock`', PROXYSTORE: "ProxyStore's"}
    found = {
        'readme-speed': [
            [f'{what}, against {against[rival]}']
            + [run.ratio(place, rival) for run in new]
            for what, place, rival in README
        ],
        'torn': [
            [peer, *(run.spread(TORN, peer) for run in new)] for peer in NAMES
        ],
        'where': [
            [name, *(run.about[name] for run in new)] for name in new[0].about
        ][1:],
    }
    lines = {}
    for name, rival in ('lock', LOCK), ('fair', FAIR), ('none', PROXYSTORE):
        found[name] = [
            [_label(place)] + [run.comparison(place, rival) for run in new]
            for place in (*CALLS, *BATCHES, *THREADS, *STORE, *WAITS)
        ]
        causes = ['sleeps' if 't' in run.tag else 'the GIL' for run in new]
        found[name].append(['what our longest waits for', *causes])
        ratios = [
            f'{_label(place)} '
            + ' and '.join(run.ratio(place, rival) for run in old)
            for place in (*CALLS, THREADS[1])
        ]
        tags = ' and '.join(run.tag for run in old)
        lines[name] = f'\n\nOn {tags}: {", ".join(ratios)}.' if old else ''
    head = ['', *(run.tag for run in new)]
    about = [[peer.name, peer.about] for peer in PEERS]
    return {'peers': _table(['Name', 'What it is'], about)} | {
        name: _table(head, rows) + lines.get(name, '')
        for name, rows in found.items()
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(
        f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)
    )
