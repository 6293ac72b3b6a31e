"""What came out: where it was measured, tables with ratios, JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from benchmarks.peers import FAIR
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import Peer
from benchmarks.peers import PROXYSTORE
from benchmarks.workloads import Measurement

# Columns of a table that stand side by side.
ACROSS = 4

TITLES = {
    'price': 'Price of a call (best time)',
    'throughput': 'Throughput, get and set (median of the rounds)',
    'waits': 'Waits of threads that never pause',
    'growth': 'Growth of the price of set (best time)',
    'memory': 'Memory beyond the values (tracemalloc)',
}


@dataclass(frozen=True)
class Floor:
    """How ours compares with a rival, whichever way up the unit is.

    Attributes:
        what: What is compared.
        rival: With whom.
        times_better: Above 1 if ours is better, below 1 if it is worse.
    """

    what: str
    rival: str
    times_better: float


def environment() -> dict[str, str]:
    """Describe where this runs.

    Returns:
        Lines of the header.
    """
    gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    free = sysconfig.get_config_var('Py_GIL_DISABLED')
    build = 'free-threaded' if free else 'default'
    return {
        'date': datetime.datetime.now(datetime.UTC).isoformat(
            sep=' ',
            timespec='seconds',
        ),
        'python': f'{platform.python_implementation()} {sys.version}',
        'build': f'{build}, GIL {"on" if gil else "off"}',
        'platform': platform.platform(),
        'cpus': str(os.cpu_count()),
        'packages': ', '.join(
            f'{name} {_version(name)}'
            for name in (
                'proxystore-local',
                'readerwriterlock',
                'proxystore',
                'tqdm',
            )
        ),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return '(not installed)'


def header(
    about: dict[str, str],
    peers: Iterable[Peer],
    skipped: Iterable[str],
) -> str:
    """Write what stands above the tables.

    Args:
        about: Description of the environment.
        peers: Peers that are measured.
        skipped: Why others are not.

    Returns:
        Lines of text.
    """
    return '\n'.join(
        [
            *(f'{name + ":":14}{line}' for name, line in about.items()),
            '',
            *(f'{peer.name:14}{peer.about}' for peer in peers),
            *skipped,
            '',
            'Each cell is: value (value / value of ours). Below the head of '
            'a column stand its\nunit and whether lower or higher values are '
            'the better ones. Where threads compete, values\nvary much from '
            'run to run; those of a quick run show little but that it works.',
        ],
    )


def tables(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Write measurements as tables: a row for each peer.

    Args:
        measurements: What to write.

    Yields:
        Tables of at most four columns.
    """
    titles = list(dict.fromkeys((m.workload, m.table) for m in measurements))
    for title in titles:
        cells = [m for m in measurements if (m.workload, m.table) == title]
        heads = list(dict.fromkeys(m.column for m in cells))
        yield f'{TITLES[title[0]]}: {title[1]}'
        for start in range(0, len(heads), ACROSS):
            part = heads[start : start + ACROSS]
            yield _table([m for m in cells if m.column in part])


def _table(cells: Sequence[Measurement]) -> str:
    values = {(m.peer, m.column): m.value for m in cells}
    columns = {m.column: m for m in cells}
    rows = [
        ['', *columns],
        ['', *(f'{m.unit}, {m.better}' for m in columns.values())],
    ]
    rows += [
        [peer, *(_cell(values, peer, column) for column in columns)]
        for peer in dict.fromkeys(m.peer for m in cells)
    ]
    return '\n'.join(
        f'{name:12}' + ''.join(f'{text:>20}' for text in texts)
        for name, *texts in rows
    )


def _cell(
    values: dict[tuple[str, str], float],
    peer: str,
    column: str,
) -> str:
    value = values.get((peer, column))
    if value is None:
        return f'{"-":11}'
    ratio = value / values[OURS, column]
    return f'{_number(value)} {f"({_number(ratio)})":>9}'


def _number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100:
        return f'{value:,.0f}'
    if value >= 10:
        return f'{value:.1f}'
    return f'{value:.2f}' if value >= 0.01 else f'{value:.0e}'


def floors(measurements: Sequence[Measurement]) -> list[Floor]:
    """Compare ours with the rivals that matter, as far as measured.

    Args:
        measurements: All that was measured.

    Returns:
        The ratios.
    """
    found = {
        (m.workload, m.table, m.column): m
        for m in measurements
        if m.peer == OURS
    }
    results = []
    for theirs in measurements:
        if not _matters(theirs):
            continue
        column, rival = theirs.column, theirs.peer
        if theirs.workload == 'memory':
            column, rival = 'put', theirs.column
        ours = found[theirs.workload, theirs.table, column]
        times_better = (
            ours.value / theirs.value
            if ours.better == 'higher'
            else theirs.value / ours.value
        )
        what = f'{ours.workload}, {ours.table}: {column}'
        results.append(Floor(what, rival, times_better))
    return results


def _matters(theirs: Measurement) -> bool:
    """Tell if ours is to be compared with this."""
    column, rival = theirs.column, theirs.peer
    match theirs.workload:
        case 'price':
            return (column, rival) in {
                ('get', LOCK),
                ('get', FAIR),
                ('set', FAIR),
                ('put', PROXYSTORE),
                ('put_batch/obj', PROXYSTORE),
                ('get_batch/obj', PROXYSTORE),
            }
        case 'throughput':
            return theirs.table == '8 threads' and rival in {LOCK, FAIR}
        case 'waits':
            return rival == FAIR and column in {
                'reads',
                'writes',
                'read p99',
                'write p99',
            }
        case 'memory':
            return (column, rival) == ('plain dict', OURS)
    return False


def floors_table(results: Iterable[Floor]) -> str:
    """Write how ours compares.

    Args:
        results: The ratios.

    Returns:
        A line for each.
    """
    return '\n'.join(
        [
            'Floors: how many times better ours is (above 1 ours is better, '
            'below 1 worse)',
            *(
                f'{f.what:50}{"against " + f.rival:22}'
                f'{_number(f.times_better):>8}'
                for f in results
            ),
        ],
    )


def to_json(
    about: dict[str, str],
    skipped: Sequence[str],
    measurements: Iterable[Measurement],
    results: Iterable[Floor],
) -> str:
    """Write everything for programs.

    Args:
        about: Description of the environment.
        skipped: Why peers were not measured.
        measurements: All that was measured.
        results: How ours compares.

    Returns:
        A JSON object.
    """
    everything: dict[str, Any] = {
        'environment': about,
        'skipped': skipped,
        'measurements': [asdict(m) for m in measurements],
        'floors': [asdict(f) for f in results],
    }
    return json.dumps(everything, indent=1, allow_nan=False)
