"""What came out: results as JSON, a summary for a screen, and tables."""

from __future__ import annotations

import dataclasses
import datetime
import importlib
import itertools
import json
import os
import platform
import re
import statistics
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from typing import NamedTuple

from benchmarks.engine import Measurement
from benchmarks.peers import FAIR
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import PEERS
from benchmarks.peers import PROXYSTORE
from benchmarks.workloads import owned
from benchmarks.workloads import price
from benchmarks.workloads import torn
from benchmarks.workloads.throughput import of_threads
from benchmarks.workloads.throughput import of_writes
from benchmarks.workloads.waits import MIXES
from benchmarks.workloads.waits import of_mix

UNSAFE = {peer.name for peer in PEERS if peer.lacks}
FREE_THREADED = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))
RIVALS = (LOCK, FAIR, PROXYSTORE)
COMPARED = ('price', 'throughput', 'waits')
# Faults are counted.
COUNTED = ('torn', 'owned')

# Workload, table and column; and what each peer got there.
Place = tuple[str, str, str]
Cells = Mapping[Place, Mapping[str, Measurement]]


@dataclass(frozen=True)
class Results:
    """All that a run found out.

    Attributes:
        about: Where and how it was measured. The tag names the Python.
        skipped: Why peers and workloads were not measured.
        measurements: What was measured.
    """

    about: Mapping[str, str]
    skipped: Sequence[str]
    measurements: Sequence[Measurement]

    def to_json(self) -> str:
        """Write everything for programs, as a JSON object."""
        rows = [dataclasses.astuple(m) for m in self.measurements]
        everything = {**vars(self), 'measurements': rows}
        text = json.dumps(everything, allow_nan=False)
        # A line for each.
        return text.replace(' [["', ' [\n["').replace('], ["', '],\n["')

    @classmethod
    def from_file(cls, path: Path) -> Results:
        """Read what `to_json()` wrote, or raise ValueError or OSError."""
        try:
            read: Any = json.loads(path.read_text(encoding='utf-8'))
            if not isinstance(read['about']['tag'], str):
                raise TypeError('the tag is not a string')
            measurements = [Measurement(*m) for m in read['measurements']]
            return cls(read['about'], read['skipped'], measurements)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{path} is not a result of python -m benchmarks: '
                f'{type(error).__name__}: {error}',
            ) from error

    def cells(self) -> Cells:
        """Get what was measured by place and peer."""
        found: dict[Place, dict[str, Measurement]] = {}
        for m in self.measurements:
            place = m.workload, m.table, m.column
            found.setdefault(place, {})[m.peer] = m
        return found


class Headline(NamedTuple):
    """A comparison that says much: in pages, and if brief in summaries."""

    group: str
    label: str
    place: Place
    brief: bool = True

    @property
    def title(self) -> str:
        """The group without its unit."""
        return self.group.partition(',')[0]


def _headlines() -> Iterator[Headline]:
    for column in (
        *('get', 'set', 'evict', 'put'),
        *('get_batch/obj', 'put_batch/obj'),
    ):
        yield Headline(
            'One thread, ns/call',
            column.replace('/obj', ' of 1000'),
            ('price', price.TABLE, column),
        )
    for threads in (8, 32):
        for percent in (0, 10, 50, 100):
            yield Headline(
                'Threads, 1000/s',
                f'{threads}, {of_writes(percent)}',
                ('throughput', of_threads(threads), of_writes(percent)),
                percent == 10 or (threads == 8 and percent != 50),
            )
    for part, title in (('p99', 'p99 of waits'), ('max', 'Longest waits')):
        for readers, writers in MIXES:
            for who in ('read', 'write'):
                yield Headline(
                    f'{title}, us',
                    f'{who}s, {readers} + {writers}',
                    ('waits', of_mix(readers, writers), f'{who} {part}'),
                    readers > writers,
                )
    for column, place in (
        ('torn in 100,000', ('torn', torn.TABLE, torn.COLUMN)),
        (owned.DEADLOCKS, ('owned', owned.TABLE, owned.DEADLOCKS)),
        ('lost or left', ('owned', owned.TABLE, owned.WRONG)),
    ):
        yield Headline('Faults', column, place)


HEADLINES = list(_headlines())


def environment() -> dict[str, str]:
    """Describe where this runs."""
    gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    build = 'free-threaded' if FREE_THREADED else 'default'
    now = datetime.datetime.now(datetime.UTC)
    packages = ['proxystore-local', 'readerwriterlock', 'proxystore']
    packages += ['fasteners', 'cereggii']
    return {
        'tag': '{}.{}'.format(*sys.version_info) + 't' * FREE_THREADED,
        'date': now.isoformat(sep=' ', timespec='seconds'),
        'python': f'{platform.python_implementation()} '
        f'{platform.python_version()}',
        'build': f'{build}, GIL {"on" if gil else "off"}',
        'platform': platform.platform(),
        'cpus': str(os.cpu_count()),
        'packages': ', '.join(f'{p} {_version(p)}' for p in packages),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return '(not installed)'


def times_better(ours: Measurement, theirs: Measurement) -> float:
    """Compare: above 1 ours is better, below 1 it is worse."""
    ratio = ours.value / theirs.value
    return ratio if ours.better == 'higher' else 1 / ratio


def is_lost(ratio: float) -> bool:
    """Tell if a comparison is lost, by more than rounding."""
    return round(ratio, 2) < 1


def _toughest(cell: Mapping[str, Measurement], *but: str) -> str:
    """Get the best rival that gives what ours gives, or the most faults."""
    rivals = [m for m in cell.values() if m.peer not in {OURS, *but}]
    if rivals and rivals[0].workload in COUNTED:
        return max(rivals, key=lambda m: m.value).peer
    rivals = [m for m in rivals if m.peer not in UNSAFE]
    best = min(
        rivals,
        key=lambda m: times_better(cell[OURS], m),
        default=None,
    )
    return best.peer if best else ''


def _number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100 or not value:
        return f'{value:,.0f}'
    if value >= 10:
        return f'{value:.1f}'
    return f'{value:.2f}' if value >= 0.1 else f'{value:.2g}'


def _against(cell: Mapping[str, Measurement], peer: str) -> str:
    """Write how many times better ours is than a peer, or its faults."""
    if peer not in cell:
        return '-'
    if cell[peer].workload in COUNTED:
        return f'{cell[peer].value:,.0f}'
    ratio = times_better(cell[OURS], cell[peer])
    # No longer than a column of the summary.
    text = _number(ratio) if ratio >= 0.1 else f'{ratio:.2f}'
    return text + ' lost' * is_lost(ratio)


def summary(run: Results) -> str:
    """Write what matters most in lines that fit a screen."""
    cells, lines, compared = run.cells(), [], []
    group = ''
    # Workloads that make no headlines are shown if nothing else was measured.
    for headline in [h for h in HEADLINES if h.brief and h.place in cells] or [
        Headline(f'{place[1]}, {cell[OURS].unit}', place[2], place)
        for place, cell in cells.items()
    ]:
        cell = cells[headline.place]
        counted = headline.place[0] in COUNTED
        if headline.group != group:
            group = headline.group
            other = 'worst other' if counted else 'best other'
            *longer, label = [group, ''] if len(group) > 19 else [group]
            lines += longer
            lines.append(_line(label, OURS, LOCK, FAIR, other, PROXYSTORE))
        other = _toughest(cell, *RIVALS)
        texts = [
            _against(cell, LOCK),
            _against(cell, FAIR),
            f'{_against(cell, other)} {other}'.strip(),
            _against(cell, PROXYSTORE),
        ]
        ours = _number(cell[OURS].value)
        lines.append(_line(f' {headline.label}', ours, *texts))
        compared += [] if counted else [text for text in texts if text != '-']
    lost = sum(' lost' in text for text in compared)
    title = f'{run.about["python"]} ({run.about["build"]})'
    if compared:
        title += f': times better, {lost} of {len(compared)} lost'
    return '\n'.join([title, *lines])


def _line(label: str, *texts: str) -> str:
    widths = (7, 10, 11, 22, 11)
    return f'{label:19}' + ''.join(
        f'{text:>{width}}' for text, width in zip(texts, widths)
    )


def full(run: Results) -> str:
    """Write every cell of a run as a page: a table for each workload."""
    peers = [p for p in PEERS if p.name in {m.peer for m in run.measurements}]
    lines = [
        f'# All figures of {run.about["python"]}',
        _table(['About', 'this run'], [[*line] for line in run.about.items()]),
        *run.skipped,
        'Each cell is: value (times that ours is better; below 1 it is worse).'
        ' The last column tells how far apart the rounds of ours are: half of '
        'the middle half of them.',
    ]
    heads = ['', 'unit, better', *(peer.label for peer in peers), 'rounds']
    rows: dict[str, dict[str, list[list[str]]]] = {}
    for (workload, table, column), cell in run.cells().items():
        unit = f'{cell[OURS].unit}, {cell[OURS].better}'
        texts = [_with_ratio(cell, peer.name) for peer in peers]
        row = [column, unit, *texts, f'+-{spread(cell[OURS]):.0%}']
        rows.setdefault(workload, {}).setdefault(table, []).append(row)
    for workload, tables in rows.items():
        module = importlib.import_module(f'benchmarks.workloads.{workload}')
        lines += [
            f'## {workload.capitalize()}',
            (module.__doc__ or '').strip(),
        ]
        for table, found in tables.items():
            lines += [f'**{table.capitalize()}**', _table(heads, found)]
    return '\n\n'.join(lines) + '\n'


def _with_ratio(cell: Mapping[str, Measurement], peer: str) -> str:
    if peer not in cell:
        return '-'
    value = _number(cell[peer].value)
    if peer == OURS or cell[peer].workload in COUNTED:
        return value
    return f'{value} ({_number(times_better(cell[OURS], cell[peer]))})'


def spread(measurement: Measurement) -> float:
    """Get half of the distance between quartiles, as a part of the median."""
    rounds = measurement.rounds
    if len(rounds) < 2 or not statistics.median(rounds):
        return 0.0
    low, middle, high = statistics.quantiles(rounds, method='inclusive')
    return (high - low) / 2 / middle


def newest_first(runs: Iterable[Results]) -> list[Results]:
    """Sort runs by their Python, free-threaded builds behind the others."""

    def version(run: Results) -> tuple[bool, list[int]]:
        tag = run.about['tag']
        return tag[-1] != 't', [int(part) for part in re.findall(r'\d+', tag)]

    return sorted(runs, key=version, reverse=True)


def markdown(runs: Sequence[Results]) -> str:
    """Write runs of several Pythons side by side, for the documentation.

    Args:
        runs: The runs, each of another Python.

    Returns:
        Sections in Markdown that pages include one by one.
    """
    tags = [run.about['tag'] for run in runs]
    cells = [run.cells() for run in runs]
    where = [name for name in runs[0].about if name != 'tag']
    peers = [[p.label, f'{p.about}. {p.lacks}'] for p in PEERS]
    sections = {
        'where': _table(
            ['', *tags],
            [[name, *(run.about[name] for run in runs)] for name in where],
        ),
        'peers': _table(['Name', 'What it is'], peers),
        'outcome': _outcome(tags, cells),
        'comparisons': _headlines_of(tags, cells, COMPARED, RIVALS),
        'correctness': _headlines_of(tags, cells, COUNTED, (OURS, *RIVALS)),
    }
    return '\n\n'.join(
        f'<!-- --8<-- [start:{name}] -->\n\n{text}\n\n'
        f'<!-- --8<-- [end:{name}] -->\n'
        for name, text in sections.items()
    )


def _headlines_of(
    tags: Sequence[str],
    runs: Sequence[Cells],
    workloads: Sequence[str],
    peers: Sequence[str],
) -> str:
    """Write headlines of workloads, each with all peers in one cell."""
    rows = [
        [
            f'{headline.title}: {headline.label}',
            *(
                ' / '.join(_against(cell, peer) for peer in peers)
                for cell in (cells.get(headline.place, {}) for cells in runs)
            ),
        ]
        for headline in HEADLINES
        if headline.place[0] in workloads
    ]
    return _table([' / '.join(peers), *tags], rows)


def _outcomes(
    runs: Sequence[Cells],
) -> Iterator[tuple[str, str, list[tuple[int, int, float]]]]:
    """Count the headlines lost to each rival, of how many, and the worst."""
    compared = [h for h in HEADLINES if h.place[0] in COMPARED]
    titles = dict.fromkeys(headline.title for headline in compared)
    for rival, title in itertools.product(RIVALS, titles):
        counts = []
        for cells in runs:
            ratios = [
                times_better(cell[OURS], cell[rival])
                for headline in compared
                if headline.title == title
                and rival in (cell := cells.get(headline.place, {}))
            ]
            lost = sum(map(is_lost, ratios))
            counts.append((lost, len(ratios), min(ratios, default=0)))
        yield rival, title, counts


def _outcome(tags: Sequence[str], runs: Sequence[Cells]) -> str:
    """Write what is lost to each rival, and how far, as a table."""
    rows = [
        [
            rival,
            title,
            *(
                f'{f"{lost} of {total}" if lost else "none"} lost; '
                f'at least {worst:.2f}'
                if total
                else '-'
                for lost, total, worst in counts
            ),
        ]
        for rival, title, counts in _outcomes(runs)
    ]
    return _table(['Against', 'What', *tags], rows)


def overview(runs: Sequence[Results]) -> str:
    """Write what is lost in runs of several Pythons, for a screen."""
    lines = ['Lost of how many, and how many times better in the worst case:']
    heads = [run.about['tag'] for run in runs]
    lines.append(f'{"":24}' + ''.join(f'{head:>13}' for head in heads))
    for rival, title, counts in _outcomes([run.cells() for run in runs]):
        texts = [
            f'{lost}/{total} {_number(worst)}' if total else '-'
            for lost, total, worst in counts
        ]
        line = f'{rival:10} {title:13}'
        lines.append(line + ''.join(f'{text:>13}' for text in texts))
    return '\n'.join(lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(
        f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)
    )
