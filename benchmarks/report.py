"""What came out: results as JSON, a summary for a screen, and tables."""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import import_module
from importlib import metadata
from pathlib import Path
from typing import Any
from typing import NamedTuple

from benchmarks import FREE_THREADED
from benchmarks.engine import Effort
from benchmarks.engine import Measurement
from benchmarks.peers import FAIR
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import PEERS
from benchmarks.peers import PROXYSTORE

RIVALS = (LOCK, FAIR, PROXYSTORE)
# Faults are counted.
COUNTED = ('torn', 'owned')
# What each peer got somewhere.
Cell = Mapping[str, Measurement]

# What summaries and pages show: labels, and workload/table/column.
SPEED = {
    'One thread, ns/call': {
        'get': 'price/one thread/get',
        'set': 'price/one thread/set',
        'evict': 'price/one thread/evict',
        'put': 'price/one thread/put',
        'get_batch of 1000': 'price/one thread/get_batch/obj',
        'put_batch of 1000': 'price/one thread/put_batch/obj',
    },
    'Threads, 1000/s': {
        '8, 0 % writes': 'throughput/8 threads/0 % writes',
        '8, 10 % writes': 'throughput/8 threads/10 % writes',
        '8, 100 % writes': 'throughput/8 threads/100 % writes',
        '32, 10 % writes': 'throughput/32 threads/10 % writes',
    },
    'Waits, us': {
        'read p99, 8 + 1': 'waits/readers + writers: 8 + 1/read p99',
        'write p99, 8 + 1': 'waits/readers + writers: 8 + 1/write p99',
        'read max, 8 + 1': 'waits/readers + writers: 8 + 1/read max',
        'write max, 8 + 1': 'waits/readers + writers: 8 + 1/write max',
    },
}
FAULTS = {
    'Faults': {
        'torn in 100,000': 'torn/readers beside put_batch/torn states seen',
        'deadlocks': 'owned/readers beside finalizers/deadlocks',
        'lost or left': 'owned/readers beside finalizers/objects lost or left',
    },
}


class Results(NamedTuple):
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
        text = json.dumps(self._asdict(), allow_nan=False)
        # A line for each measurement.
        return text.replace(' [["', ' [\n["').replace('], ["', '],\n["')

    @classmethod
    def from_file(cls, path: Path) -> Results:
        """Read what `to_json()` wrote, or raise ValueError or OSError."""
        text = path.read_text(encoding='utf-8')
        try:
            read: dict[str, Any] = json.loads(text)
            measurements = [Measurement(*m) for m in read.pop('measurements')]
            return cls(**read, measurements=measurements)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f'{path} is not a result of python -m benchmarks: {error!r}',
            ) from error

    def cells(self) -> dict[str, dict[str, Measurement]]:
        """Get what was measured, by workload/table/column and by peer."""
        found: dict[str, dict[str, Measurement]] = {}
        for m in self.measurements:
            place = f'{m.workload}/{m.table}/{m.column}'
            found.setdefault(place, {})[m.peer] = m
        return found


def environment(effort: Effort) -> dict[str, str]:
    """Describe where and how this measures."""
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
        'effort': ', '.join(f'{k} {v:,}' for k, v in effort._asdict().items()),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return '(not installed)'


def times_better(cell: Cell, peer: str) -> float:
    """Compare with a peer: above 1 ours is better, below 1 it is worse."""
    ratio = cell[OURS].value / cell[peer].value
    return ratio if cell[OURS].better == 'higher' else 1 / ratio


def _number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100 or not value:
        return f'{value:,.0f}'
    if value >= 10:
        return f'{value:.1f}'
    return f'{value:.2f}' if value >= 0.1 else f'{value:.2g}'


def _against(cell: Cell, peer: str) -> str:
    """Write how many times better ours is than a peer, or its faults."""
    if peer not in cell:
        return '-'
    if cell[peer].workload in COUNTED:
        return f'{cell[peer].value:,.0f}'
    ratio = times_better(cell, peer)
    # No longer than a column of the summary.
    text = _number(ratio) if ratio >= 0.1 else f'{ratio:.2f}'
    return text + ' lost' * (round(ratio, 2) < 1)


def _best_other(cell: Cell) -> str:
    """Get the best of the other rivals that give what ours gives."""
    names = {p.name for p in PEERS if not p.lacks} - {OURS, *RIVALS}
    best = max if cell[OURS].better == 'higher' else min
    others = [m for m in cell.values() if m.peer in names]
    return best(others, key=lambda m: m.value).peer if others else ''


def summary(run: Results) -> str:
    """Write what matters most in lines that fit a screen."""
    cells = run.cells()
    rows = [
        (group, label, cells[place])
        for group, places in (SPEED | FAULTS).items()
        for label, place in places.items()
        if place in cells
    ] or [
        # Only workloads that are not among these were measured.
        (f'{cell[OURS].table}, {cell[OURS].unit}', cell[OURS].column, cell)
        for cell in cells.values()
    ]
    lines = [
        f'{run.about["python"]} ({run.about["build"]}): times better, or lost',
        _line('', OURS, LOCK, FAIR, 'best other', PROXYSTORE),
    ]
    for group, some in itertools.groupby(rows, lambda row: row[0]):
        lines.append(group)
        for _, label, cell in some:
            best = _best_other(cell)
            lock, fair, other, proxystore = (
                _against(cell, peer) for peer in (LOCK, FAIR, best, PROXYSTORE)
            )
            texts = [lock, fair, f'{other} {best}'.strip(), proxystore]
            ours = _number(cell[OURS].value)
            lines.append(_line(f' {label}', ours, *texts))
    return '\n'.join(lines)


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
        _table(['About', 'this run'], run.about.items()),
        *run.skipped,
        'Each cell is: value (times that ours is better; below 1 it is worse).'
        ' The last column tells how far apart the rounds of ours are: half of '
        'the middle half of them.',
    ]
    heads = ['', 'unit, better', *(peer.label for peer in peers), 'rounds']
    tables: dict[tuple[str, str], list[list[str]]] = {}
    for cell in run.cells().values():
        ours = cell[OURS]
        row = [ours.column, f'{ours.unit}, {ours.better}']
        row += [_with_ratio(cell, peer.name) for peer in peers]
        row += [_spread(ours.rounds)]
        tables.setdefault((ours.workload, ours.table), []).append(row)
    for workload, places in itertools.groupby(tables, lambda at: at[0]):
        text = import_module(f'benchmarks.workloads.{workload}').__doc__
        lines += [f'## {workload.capitalize()}', str(text).strip()]
        for place in places:
            table = _table(heads, tables[place])
            lines += [f'**{place[1].capitalize()}**', table]
    return '\n\n'.join(lines) + '\n'


def _with_ratio(cell: Cell, peer: str) -> str:
    if peer not in cell:
        return '-'
    value = _number(cell[peer].value)
    if peer == OURS or cell[peer].workload in COUNTED:
        return value
    return f'{value} ({_number(times_better(cell, peer))})'


def _spread(rounds: Sequence[float]) -> str:
    """Write half of the distance between quartiles, as part of the median."""
    if len(rounds) < 2 or not statistics.median(rounds):
        return '-'
    low, middle, high = statistics.quantiles(rounds, method='inclusive')
    return f'+-{(high - low) / 2 / middle:.0%}'


def newest_first(runs: Iterable[Results]) -> list[Results]:
    """Sort runs by their Python, free-threaded builds behind the others.

    Raises ValueError if two are of the same Python.
    """

    def version(run: Results) -> tuple[bool, str]:
        return 't' not in run.about['tag'], run.about['tag']

    found = sorted(runs, key=version, reverse=True)
    tags = [run.about['tag'] for run in found]
    if len(tags) != len(set(tags)):
        raise ValueError(
            f'expected one result of each Python, not of {", ".join(tags)}',
        )
    return found


def markdown(runs: Sequence[Results]) -> str:
    """Write runs of several Pythons side by side, for the documentation.

    Args:
        runs: The runs, each of another Python.

    Returns:
        Sections in Markdown that pages include one by one.
    """
    where = [
        [name, *(run.about[name] for run in runs)] for name in runs[0].about
    ]
    peers = [[p.label, f'{p.about}. {p.lacks}'] for p in PEERS]
    sections = {
        'where': _table(['', *where[0][1:]], where[1:]),
        'peers': _table(['Name', 'What it is'], peers),
        'comparisons': _side_by_side(runs, SPEED, RIVALS),
        'correctness': _side_by_side(runs, FAULTS, (OURS, *RIVALS)),
    }
    return '\n\n'.join(
        f'<!-- --8<-- [start:{name}] -->\n\n{text}\n\n'
        f'<!-- --8<-- [end:{name}] -->\n'
        for name, text in sections.items()
    )


def _side_by_side(
    runs: Sequence[Results],
    groups: Mapping[str, Mapping[str, str]],
    peers: Sequence[str],
) -> str:
    """Write a column for each Python, each with all peers in one cell."""
    every = [run.cells() for run in runs]
    rows = []
    for group, places in groups.items():
        for label, place in places.items():
            row = [f'{group.partition(",")[0]}: {label}']
            for cells in every:
                cell = cells.get(place, {})
                row.append(' / '.join(_against(cell, p) for p in peers))
            rows.append(row)
    return _table([' / '.join(peers), *(r.about['tag'] for r in runs)], rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(
        f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)
    )
