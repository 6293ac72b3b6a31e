"""What came out: results as JSON, a summary for a screen, and tables."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from importlib import metadata
from inspect import getdoc
from pathlib import Path
from typing import NamedTuple

from benchmarks.engine import Figures
from benchmarks.peers import PEERS
from benchmarks.workloads import Effort
from benchmarks.workloads import WORKLOADS

# Pythons where `with` on a Lock has two speeds, which a Store hides.
TWO_SPEEDS = ('3.11', '3.12', '3.13')

CALLS = [f'price/{name}' for name in ('get', 'set', 'evict', 'put')]
BATCHES = [f'batches/{name} of 1,000' for name in ('get_batch', 'put_batch')]
THREADS = [
    f'throughput/{threads} threads, {percent} % writes'
    for threads in (8, 32)
    for percent in (0, 10, 50, 100)
]
STORE = [
    f'store/{threads}{wait}'
    for wait in ('', ', 1 ms')
    for threads in (
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
SCREEN = [*CALLS, *BATCHES, *THREADS[:4], *WAITS[:2], *STORE[:3:2], TORN]

README = [
    ('8 threads with a `Store` each', STORE[2], 'Lock'),
    ('8 threads with a `Store` each', STORE[2], 'ProxyStore'),
    ('8 threads, 10 % writes', THREADS[1], 'Lock'),
    ('`get`', CALLS[0], 'Lock'),
    ('`set`', CALLS[1], 'Lock'),
    ('`put`', CALLS[3], 'Lock'),
    ('`get`', CALLS[0], 'ProxyStore'),
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
        text = json.dumps(self._asdict())
        text = text.replace('"figures": {', '"figures": {\n')
        return text.replace(']}, "', ']},\n"')

    def to_page(self) -> str:
        """Write all figures."""
        about = ', '.join(f'{k}: {v}' for k, v in self.about.items())
        parts = [f'## {self.about["python"]}', about]
        for workload, places in _by_workload(self.figures):
            measure, unit, _ = WORKLOADS[workload]
            rows = [
                [_label(place), *(self.spread(place, peer) for peer in PEERS)]
                for place in places
            ]
            parts += [
                f'**{workload.capitalize()}**, {unit}: {getdoc(measure)}',
                _table(['', *PEERS], rows),
            ]
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
        fastest = peer == 'Lock' and self.tag in TWO_SPEEDS
        if fastest and place not in STORE:
            return most if _is_rate(place) else least
        return median

    def ratio(self, place: str, rival: str, lost: str = '**{}**') -> str:
        """Write how many times better ours is than a rival, or worse.

        With the longest waits, write both as well.
        """
        if rival not in self.figures.get(place, {}):
            return '-'
        ours, other = (self.value(place, peer) for peer in ('ours', rival))
        ratio = ours / other if _is_rate(place) else other / ours
        text = (lost if round(ratio, 2) < 1 else '{}').format(number(ratio))
        if place.endswith('longest'):
            text += f' ({number(ours / 1000)} and {number(other / 1000)} ms)'
        return text


def read(files: Iterable[Path]) -> list[Results]:
    """Read results, of the newest Python first, free-threaded builds last."""
    found = [Results(**json.loads(file.read_bytes())) for file in files]
    return sorted(found, key=lambda r: ('t' not in r.tag, r.tag), reverse=True)


def environment(effort: Effort) -> dict[str, str]:
    """Describe where and how this measures."""
    gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    free_threaded = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))
    found = {it.name: it.version for it in metadata.distributions()}
    packages = 'readerwriterlock', 'proxystore', 'fasteners', 'cereggii'
    python = f'{platform.python_implementation()} {platform.python_version()}'
    return {
        'tag': '{}.{}'.format(*sys.version_info) + 't' * free_threaded,
        'python': f'{python} (GIL {"on" if gil else "off"})',
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
        _line('', PEERS),
    ]
    places = [place for place in SCREEN if place in run.figures]
    for workload, some in _by_workload(places):
        lines.append(f'{workload}, {WORKLOADS[workload].unit}')
        for place in some:
            medians = {
                peer: number(median)
                for peer, (median, *_) in run.figures[place].items()
            }
            texts = [
                medians.get(peer, '-')
                if peer == 'ours' or place == TORN
                else run.ratio(place, peer, '{}!')
                for peer in PEERS
            ]
            lines.append(_line(_label(place), texts))
    return '\n'.join(lines)


def _line(label: str, texts: Iterable[str]) -> str:
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


def pages(runs: Sequence[Results]) -> dict[str, str]:
    """Write a page of all figures, and sections that other pages include."""
    head = '# All figures\n\nMedian of all processes (least-most).\n\n'
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
    head = ['', *(run.tag for run in runs)]
    against = {'Lock': '`Lock`', 'ProxyStore': "ProxyStore's"}
    peers = [[name, peer.about] for name, peer in PEERS.items()]
    speed = [
        [f'{what}, against {against[rival]}']
        + [run.ratio(place, rival) for run in runs]
        for what, place, rival in README
    ]
    torn = [
        [peer, *(run.spread(TORN, peer) for run in runs)] for peer in PEERS
    ]
    found = {
        'peers': _table(['Name', 'What it is'], peers),
        'readme-speed': _table(head, speed),
        'torn': _table(head, torn),
    }
    for name, rival in (
        ('lock', 'Lock'),
        ('fair', 'RWLockFair'),
        ('none', 'ProxyStore'),
    ):
        rows = [
            [_label(place), *(run.ratio(place, rival) for run in runs)]
            for place in (*CALLS, *BATCHES, *THREADS, *STORE, *WAITS)
        ]
        found[name] = _table(head, rows)
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(
        f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)
    )
