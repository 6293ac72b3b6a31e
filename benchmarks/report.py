"""What came out: where it was measured, tables with ratios, JSON."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
import sysconfig
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
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
    'price': 'Price of a call (median of the processes)',
    'throughput': 'Throughput, get and set (median of the rounds)',
    'waits': 'Waits of threads that never pause',
    'growth': 'Growth of the price of set (median of the processes)',
    'batches': 'Price of an object of a batch (median of the processes)',
    'objects': 'Price by the size of the object (median of the processes)',
    'store': "Throughput through ProxyStore's Store (median of the rounds)",
    'memory': 'Memory beyond the values (tracemalloc)',
}

PACKAGES = (
    'proxystore-local',
    'readerwriterlock',
    'proxystore',
    'fasteners',
    'cereggii',
)


@dataclass(frozen=True)
class Results:
    """All that a run found out.

    Attributes:
        about: Where and how it was measured.
        skipped: Why peers were not measured.
        measurements: What was measured.
    """

    about: Mapping[str, str]
    skipped: Sequence[str]
    measurements: Sequence[Measurement]

    def to_json(self) -> str:
        """Write everything for programs.

        Returns:
            A JSON object.
        """
        return json.dumps(
            {
                'about': self.about,
                'skipped': self.skipped,
                'measurements': [asdict(m) for m in self.measurements],
            },
            allow_nan=False,
            default=list,
        ).replace('{"workload"', '\n{"workload"')

    @classmethod
    def from_file(cls, path: Path) -> Results:
        """Read what `to_json()` wrote.

        Args:
            path: File to read.

        Returns:
            The results.

        Raises:
            ValueError: If the file holds something else.
            OSError: If it cannot be read.
        """
        try:
            read: Any = json.loads(path.read_text(encoding='utf-8'))
            if not isinstance(read['about']['tag'], str):
                raise TypeError('the tag is not a string')
            return cls(
                read['about'],
                read['skipped'],
                [Measurement(**m) for m in read['measurements']],
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f'{path} is not a result of python -m benchmarks: '
                f'{type(error).__name__}: {error}',
            ) from error


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
        Lines of the header. The tag is short and names the Python.
    """
    gil = getattr(sys, '_is_gil_enabled', lambda: True)()
    free = sysconfig.get_config_var('Py_GIL_DISABLED')
    build = 'free-threaded' if free else 'default'
    return {
        'tag': '{}.{}'.format(*sys.version_info) + 't' * bool(free),
        'date': datetime.datetime.now(datetime.UTC).isoformat(
            sep=' ',
            timespec='seconds',
        ),
        'python': f'{platform.python_implementation()} '
        f'{platform.python_version()}',
        'build': f'{build}, GIL {"on" if gil else "off"}',
        'platform': platform.platform(),
        'cpus': str(os.cpu_count()),
        'packages': ', '.join(f'{p} {_version(p)}' for p in PACKAGES),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return '(not installed)'


def header(
    about: Mapping[str, str],
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
            'the better ones. The last rows tell how\nmany times better ours '
            'is than the best rival that gives what it gives (not those\nwith '
            'a *), and how far apart the rounds are (half of the middle half '
            'of them).\nWhere threads compete, values vary much from run to '
            'run; those of a quick run show\nlittle but that it works.',
        ],
    )


def tables(measurements: Sequence[Measurement]) -> Iterator[str]:
    """Write measurements as tables: a row for each peer.

    Args:
        measurements: What to write.

    Yields:
        Tables of at most four columns.
    """
    for title, cells in _by_table(measurements):
        yield title
        heads = list(dict.fromkeys(m.column for m in cells))
        for start in range(0, len(heads), ACROSS):
            part = heads[start : start + ACROSS]
            yield _table([m for m in cells if m.column in part])


def _by_table(
    measurements: Sequence[Measurement],
) -> Iterator[tuple[str, list[Measurement]]]:
    titles = dict.fromkeys((m.workload, m.table) for m in measurements)
    for workload, table in titles:
        yield (
            f'{TITLES[workload]}: {table}',
            [
                m
                for m in measurements
                if (m.workload, m.table) == (workload, table)
            ],
        )


def _table(cells: Sequence[Measurement]) -> str:
    columns: dict[str, dict[str, Measurement]] = {}
    for m in cells:
        columns.setdefault(m.column, {})[m.peer] = m
    ours = [column[OURS] for column in columns.values()]
    rows = [
        ['', *columns],
        ['', *(f'{m.unit}, {m.better}' for m in ours)],
    ]
    for peer, safe in {m.peer: m.safe for m in cells}.items():
        rows.append(
            [peer + '*' * (not safe)]
            + [_cell(column, peer) for column in columns.values()],
        )
    best = [best_rival(column.values()) for column in columns.values()]
    rows.append(
        ['times better']
        + [
            f'{_number(floor.times_better)} than {floor.rival}'
            if floor
            else '-'
            for floor in best
        ],
    )
    rows.append(['rounds', *(f'± {spread(m):.0%}' for m in ours)])
    return '\n'.join(
        f'{name:13}' + ''.join(f'{text:>23}' for text in texts)
        for name, *texts in rows
    )


def _cell(column: Mapping[str, Measurement], peer: str) -> str:
    if peer not in column:
        return f'{"-":11}'
    value = column[peer].value
    ratio = value / column[OURS].value
    return f'{_number(value)} {f"({_number(ratio)})":>9}'


def _number(value: float) -> str:
    """Write a number with about three digits."""
    if value >= 100:
        return f'{value:,.0f}'
    if value >= 10:
        return f'{value:.1f}'
    return f'{value:.2f}' if value >= 0.01 else f'{value:.0e}'


def spread(measurement: Measurement) -> float:
    """Tell how far apart the rounds of a measurement are.

    Args:
        measurement: What was measured.

    Returns:
        Half of the distance between their quartiles, as a part of their
        median.
    """
    rounds = measurement.rounds
    if len(rounds) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(rounds, method='inclusive')
    return (high - low) / 2 / middle


def compare(ours: Measurement, theirs: Measurement) -> Floor:
    """Compare two measurements of one thing.

    Args:
        ours: What we get.
        theirs: What a rival gets.

    Returns:
        The ratio.
    """
    ratio = ours.value / theirs.value
    return Floor(
        f'{ours.workload}, {ours.table}: {ours.column}',
        theirs.peer,
        ratio if ours.better == 'higher' else 1 / ratio,
    )


def best_rival(cells: Iterable[Measurement]) -> Floor | None:
    """Compare ours with the best rival that gives what ours gives.

    Args:
        cells: What was measured of all peers.

    Returns:
        The ratio, or none if there is no such rival.
    """
    cells = list(cells)
    (ours,) = (m for m in cells if m.peer == OURS)
    return min(
        (compare(ours, m) for m in cells if m.safe and m.peer != OURS),
        key=lambda floor: floor.times_better,
        default=None,
    )


def floors(measurements: Sequence[Measurement]) -> list[Floor]:
    """Compare ours with the rivals that matter, as far as measured.

    Args:
        measurements: All that was measured.

    Returns:
        The ratios.
    """
    ours = {
        (m.workload, m.table, m.column): m
        for m in measurements
        if m.peer == OURS
    }
    results = [
        compare(ours[m.workload, m.table, m.column], m)
        for m in measurements
        if _matters(m)
    ]
    for m in ours.values():
        if (m.workload, m.column) == ('memory', 'plain dict'):
            put = ours[m.workload, m.table, 'put']
            ratio = m.value / put.value
            results.append(Floor('memory: put', 'plain dict', ratio))
    return results


def _matters(theirs: Measurement) -> bool:
    """Tell if ours is to be compared with this."""
    column, rival = theirs.column, theirs.peer
    match theirs.workload:
        case 'price':
            return (column, rival) in {
                ('get', LOCK),
                ('get', FAIR),
                ('set', LOCK),
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
            'How many times better ours is (above 1 ours is better, below 1 '
            'worse)',
            *(
                f'{f.what:50}{"against " + f.rival:22}'
                f'{_number(f.times_better):>8}'
                for f in results
            ),
        ],
    )


def markdown(runs: Sequence[Results]) -> str:
    """Write runs of several Pythons side by side, for the documentation.

    Args:
        runs: The runs, each of another Python.

    Returns:
        Tables in Markdown, as sections that can be included one by one.
    """
    tags = [run.about['tag'] for run in runs]
    sections = {
        'where': _markdown_rows(
            ['', *tags],
            [
                [name, *(run.about[name] for run in runs)]
                for name in (
                    'date',
                    'python',
                    'build',
                    'platform',
                    'cpus',
                    'packages',
                    'effort',
                )
            ],
        ),
        'floors': _markdown_rows(
            ['What', 'Against', *tags],
            _floor_rows([floors(run.measurements) for run in runs]),
        ),
    }
    for workload in TITLES:
        chosen = [
            [m for m in run.measurements if m.workload == workload]
            for run in runs
        ]
        tables = dict.fromkeys(m.table for some in chosen for m in some)
        sections[workload] = '\n\n'.join(
            f'**{table[0].upper()}{table[1:]}**\n\n'
            + _markdown_rows(
                ['', *tags],
                _markdown_cells(
                    [[m for m in some if m.table == table] for some in chosen]
                ),
            )
            for table in tables
        )
    return (
        '\n\n'.join(
            f'<!-- --8<-- [start:{name}] -->\n\n{text}\n\n'
            f'<!-- --8<-- [end:{name}] -->'
            for name, text in sections.items()
            if text
        )
        + '\n'
    )


def _floor_rows(runs: Sequence[Sequence[Floor]]) -> Iterator[list[str]]:
    ratios = [
        {(floor.what, floor.rival): floor.times_better for floor in run}
        for run in runs
    ]
    for what, rival in dict.fromkeys(pair for run in ratios for pair in run):
        yield [
            what,
            rival,
            *(_ratio(run.get((what, rival))) for run in ratios),
        ]


def _ratio(times_better: float | None) -> str:
    """Write a ratio, in bold type where ours is worse."""
    if times_better is None:
        return '-'
    text = _number(times_better)
    return f'**{text}**' if round(times_better, 2) < 1 else text


def _markdown_cells(
    runs: Sequence[Sequence[Measurement]],
) -> Iterator[list[str]]:
    for column in dict.fromkeys(m.column for run in runs for m in run):
        row = [column]
        for run in runs:
            cells = [m for m in run if m.column == column]
            if not cells:
                row.append('-')
                continue
            (ours,) = (m for m in cells if m.peer == OURS)
            best = best_rival(cells)
            value = f'{_number(ours.value)} {ours.unit}'
            if best:
                ratio = _ratio(best.times_better)
                value += f', {ratio} x {best.rival}'
            row.append(value)
        yield row


def _markdown_rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return '\n'.join(
        f'| {" | ".join(row)} |' for row in (head, ['---'] * len(head), *rows)
    )
