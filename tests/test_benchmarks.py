"""The benchmarks run, fill every cell, and get their ratios right."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import re
import statistics
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

pytest.importorskip('matplotlib', reason='the extra benchmarks is missing')

from benchmarks.peers import FAIR
from benchmarks.peers import find_peers
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import Peer
from benchmarks.peers import PROXYSTORE
from benchmarks.plots import plots
from benchmarks.report import environment
from benchmarks.report import Floor
from benchmarks.report import floors
from benchmarks.report import floors_table
from benchmarks.report import markdown
from benchmarks.report import Results
from benchmarks.report import tables
from benchmarks.workloads import Case
from benchmarks.workloads import Column
from benchmarks.workloads import combine
from benchmarks.workloads import KEYS
from benchmarks.workloads import Measurement
from benchmarks.workloads import QUICK
from benchmarks.workloads import take_turns
from benchmarks.workloads import waits
from benchmarks.workloads import WORKLOADS
from proxystore_local import LocalConnector
from proxystore_local import LocalKey

ROOT = Path(__file__).parent.parent

PEERS, SKIPPED = find_peers()

HAS_PROXYSTORE = importlib.util.find_spec('proxystore') is not None

FREE_THREADED = bool(sysconfig.get_config_var('Py_GIL_DISABLED'))
TAG = '{}.{}'.format(*sys.version_info) + 't' * FREE_THREADED

PLOTS = {'price', 'throughput', 'waits', 'growth', 'store'}


def run(
    *arguments: str,
    timeout: float = 110,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks', *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def cell(
    peer: str,
    value: float,
    workload: str = 'price',
    column: str = 'get',
    **changes: Any,
) -> Measurement:
    measurement = Measurement(
        workload,
        'one thread',
        column,
        peer,
        value,
        'ns',
        'lower',
    )
    return dataclasses.replace(measurement, **changes)


@pytest.mark.timeout(300)
def test_quick_run_fills_every_cell_of_every_table(tmp_path: Path) -> None:
    done = run(
        *('--quick', '--seconds', '0.01', '--output', str(tmp_path)),
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    # What comes first is what this machine calls itself, of any length.
    _, _, tables = done.stdout.partition('\n\n')
    assert max(map(len, tables.splitlines())) <= 120
    assert 'GIL' in done.stdout
    assert '100%' in done.stderr
    results = Results.from_file(tmp_path / f'{TAG}.json')
    assert results.skipped == SKIPPED
    assert all(sentence in done.stdout for sentence in SKIPPED)

    cells = {
        (m.workload, m.table, m.column, m.peer): m.value
        for m in results.measurements
    }
    assert cells.keys() == {
        (case.workload, case.table, column.name, peer.name)
        for workload in WORKLOADS.values()
        for case in workload(QUICK)
        for column in case.columns
        for peer in PEERS
    } - {('price', 'one thread', 'len', PROXYSTORE)}
    measured = {*WORKLOADS} - ({'store'} if not HAS_PROXYSTORE else set())
    assert {name for name, *_ in cells} == measured
    assert all(0 < value < math.inf for value in cells.values())

    lines = done.stdout.splitlines()
    for _, table, column, peer in cells:
        assert any(line.endswith(f': {table}') for line in lines)
        assert any(column in line for line in lines)
        assert any(re.match(rf'{peer}\*? ', line) for line in lines)

    compared = floors(results.measurements)
    assert {f.what.partition(',')[0].partition(':')[0] for f in compared} == {
        'price',
        'throughput',
        'waits',
        'memory',
    }
    assert all(0 < f.times_better < math.inf for f in compared)
    assert floors_table(compared) in done.stdout

    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        f'{TAG}.json',
        *(
            f'{name}-{TAG}.svg'
            for name in PLOTS - (WORKLOADS.keys() - measured)
        ),
    }


def test_only_selects_workloads(tmp_path: Path) -> None:
    done = run('--quick', '--only', 'memory', '--output', str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert 'Memory' in done.stdout
    assert 'Throughput' not in done.stdout


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--only', 'speed'], "invalid choice: 'speed'"),
        (['--seconds', '0'], "not a positive number: '0'"),
        (['--seconds', 'nan'], "not a positive number: 'nan'"),
        (['--seconds', 'soon'], "not a positive number: 'soon'"),
        (['--output', 'pyproject.toml'], "File exists: 'pyproject.toml'"),
        (['--output'], 'expected one argument'),
        (['--merge'], 'expected at least one argument'),
        (['--merge', 'no/such/file.json'], 'no/such/file.json'),
        (['--merge', 'LICENSE'], 'LICENSE is not a result of python -m'),
        (['--fast'], 'unrecognized arguments: --fast'),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stdout == ''


def test_peers_are_ours_and_all_rivals() -> None:
    names = [peer.name for peer in PEERS]
    assert names == [
        OURS,
        LOCK,
        'RLock',
        FAIR,
        'RWLockRead',
        'RWLockWrite',
        'fasteners',
        'cereggii',
        'AtomicDict',
        *([PROXYSTORE] if HAS_PROXYSTORE else []),
    ]
    assert len(SKIPPED) == (not HAS_PROXYSTORE)
    assert {peer.name for peer in PEERS if not peer.safe} == {
        'AtomicDict',
        PROXYSTORE,
    } & set(names)


def test_peer_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, 'fasteners', None)
    peers, skipped = find_peers()
    assert 'fasteners' not in {peer.name for peer in peers}
    assert any('fasteners is skipped: ' in sentence for sentence in skipped)


@pytest.mark.parametrize('peer', PEERS, ids=lambda peer: peer.name)
def test_peer_is_a_connector(peer: Peer) -> None:
    connector = peer.make()
    key = connector.put(b'one')
    assert connector.exists(key)
    assert connector.get(key) == b'one'
    connector.set(key, b'two')
    assert connector.get(key) == b'two'
    missing = connector.new_key()
    assert not connector.exists(missing)
    assert connector.get(missing) is None
    keys = connector.put_batch([b'three', b'four'])
    assert connector.get_batch([*keys, missing]) == [b'three', b'four', None]
    connector.evict(key)
    connector.evict(key)
    assert not connector.exists(key)
    assert len({key, missing, *keys}) == 4
    assert not peer.make().exists(keys[0])


def test_peers_take_turns() -> None:
    turns: list[str] = []

    def peer(name: str) -> Peer:
        def make() -> LocalConnector:
            turns.append(name)
            return LocalConnector()

        return Peer(name, '', make)

    case = Case('price', 'one thread', (), 1, lambda _: (len(turns),))
    peers = [peer('a'), peer('b'), peer('c')]
    assert take_turns(case, peers, 0) == [(1,), (2,), (3,)]
    assert take_turns(case, peers, 4) == [(6,), (4,), (5,)]
    assert turns == ['a', 'b', 'c', 'b', 'c', 'a']


def test_rounds_are_combined() -> None:
    case = Case(
        'price',
        'one thread',
        (
            Column('least', 'ns', 'lower', min),
            Column('middle', 'ns', 'lower', statistics.median),
        ),
        3,
        lambda _: (),
    )
    peers = [
        Peer('a', '', LocalConnector),
        Peer('b', '', LocalConnector, safe=False),
        Peer('cannot', '', LocalConnector),
    ]
    results = list(
        combine(
            case,
            peers,
            [
                [(1, -1), (2, -2), ()],
                [(3, -3), (4, -4), ()],
                [(5, -5), (6, -6), ()],
            ],
        )
    )
    assert list(results[-1].rounds) == [-2, -4, -6]
    assert [(m.peer, m.column, m.value, m.safe) for m in results] == [
        ('a', 'least', 1, True),
        ('a', 'middle', -3, True),
        ('b', 'least', 2, False),
        ('b', 'middle', -4, False),
    ]


@pytest.mark.parametrize(
    ('workload', 'column'),
    [
        ('price', 'get'),
        ('throughput', '0 % writes'),
        ('waits', 'reads'),
        ('growth', '8 alive'),
        ('growth', '500 ended'),
        ('batches', '10'),
        ('objects', '1 GiB'),
        pytest.param(
            'store',
            '8 threads',
            marks=pytest.mark.skipif(
                not HAS_PROXYSTORE,
                reason='proxystore is not installed',
            ),
        ),
        ('memory', 'put'),
    ],
)
def test_failure_of_a_connector_ends_it_all(
    workload: str,
    column: str,
) -> None:
    class BrokenConnector(LocalConnector):
        def get(self, key: LocalKey) -> bytes | None:
            raise ZeroDivisionError

        def get_batch(self, keys: Any) -> list[Any]:
            raise ZeroDivisionError

        def put(self, obj: Any) -> LocalKey:
            raise ZeroDivisionError

        def put_batch(self, objs: Any) -> list[LocalKey]:
            raise ZeroDivisionError

    threads = threading.active_count()
    effort = dataclasses.replace(QUICK, seconds=1000)
    cases = [
        case
        for case in WORKLOADS[workload](effort)
        if case.columns[0].name == column
    ]
    assert cases
    for case in cases:
        with pytest.raises(ZeroDivisionError):
            case.run(BrokenConnector())
    assert threading.active_count() == threads


def test_waits_tell_reads_from_writes() -> None:
    reads: list[LocalKey] = []
    writes: list[LocalKey] = []

    class CountingConnector(LocalConnector):
        def get(self, key: LocalKey) -> bytes | None:
            reads.append(key)
            return super().get(key)

        def set(self, key: LocalKey, obj: Any) -> None:
            writes.append(key)
            super().set(key, obj)

    effort = dataclasses.replace(QUICK, seconds=0.001)
    for case in waits(effort):
        reads.clear()
        writes.clear()
        names = [column.name for column in case.columns]
        found = dict(zip(names, case.run(CountingConnector())))
        assert found['reads'] / found['writes'] == pytest.approx(
            len(reads) / (len(writes) - len(KEYS)),
        )
        for who in ('read', 'write'):
            assert 0 < found[f'{who} p50'] <= found[f'{who} p99']
            assert found[f'{who} p99'] <= found[f'{who} p99.9']
            assert found[f'{who} p99.9'] <= found[f'{who} max']


def test_table_shows_how_many_times_ours() -> None:
    title, table = tables(
        [
            cell(OURS, 200, rounds=(100, 200, 200, 400)),
            cell(LOCK, 50.0),
            cell(FAIR, 800),
            cell(PROXYSTORE, 1.0, safe=False),
        ]
    )
    assert title.endswith(': one thread')
    head, units, ours, lock, _, unsafe, best, rounds = table.splitlines()
    assert head.split() == ['get']
    assert units.split() == ['ns,', 'lower']
    assert ours.split() == [OURS, '200', '(1.00)']
    assert lock.split() == [LOCK, '50.0', '(0.25)']
    assert unsafe.split() == [f'{PROXYSTORE}*', '1.00', '(5e-03)']
    assert best.split() == ['times', 'better', '0.25', 'than', LOCK]
    # Quartiles of the rounds: 175, 200 and 250.
    assert rounds.split() == ['rounds', '±', '19%']


def test_table_leaves_out_what_a_peer_cannot_do() -> None:
    _, table = tables(
        [
            cell(OURS, 1),
            cell(OURS, 1, column='len'),
            cell(PROXYSTORE, 1, safe=False),
        ],
    )
    _, _, _, theirs, best, _ = table.splitlines()
    assert theirs.split() == [f'{PROXYSTORE}*', '1.00', '(1.00)', '-']
    assert best.split() == ['times', 'better', '-', '-']


def test_wide_table_is_split() -> None:
    _, left, right = tables(
        [cell(OURS, n, column=f'c{n}') for n in range(1, 7)]
    )
    assert left.split()[:4] == ['c1', 'c2', 'c3', 'c4']
    assert right.split()[:2] == ['c5', 'c6']


@pytest.mark.parametrize(
    ('value', 'text'),
    [
        (12345.6, '12,346'),
        (99.94, '99.9'),
        (1.234, '1.23'),
        (0.01, '0.01'),
        (0.00049, '5e-04'),
    ],
)
def test_numbers_have_about_three_digits(value: float, text: str) -> None:
    _, table = tables([cell(OURS, value)])
    assert table.splitlines()[2].split()[1] == text


def test_floors_are_above_one_where_ours_is_better() -> None:
    more = {'unit': 'k/s', 'better': 'higher', 'table': '8 threads'}
    results = floors(
        [
            cell(OURS, 100),
            cell(LOCK, 50),
            cell(FAIR, 400),
            cell('RWLockRead', 100),
            cell(OURS, 30, 'throughput', '0 % writes', **more),
            cell(LOCK, 10, 'throughput', '0 % writes', **more),
            cell(OURS, 200, 'memory', 'put'),
            cell(OURS, 100, 'memory', 'plain dict'),
            cell(OURS, 1, 'growth', '0 alive'),
            cell(FAIR, 1, 'growth', '0 alive'),
        ],
    )
    assert results == [
        Floor('price, one thread: get', LOCK, 0.5),
        Floor('price, one thread: get', FAIR, 4),
        Floor('throughput, 8 threads: 0 % writes', LOCK, 3),
        Floor('memory: put', 'plain dict', 0.5),
    ]
    lines = floors_table(results).splitlines()
    assert 'above 1 ours is better' in lines[0]
    assert lines[2].split()[-3:] == ['against', FAIR, '4.00']


def results(tag: str, *measurements: Measurement) -> Results:
    about = dict.fromkeys([*environment(), 'effort'], '?')
    return Results(about | {'tag': tag}, [], measurements)


def test_results_can_be_read_again(tmp_path: Path) -> None:
    written = results('3.13', cell(OURS, 1.5, rounds=(1.5, 2.5)))
    path = tmp_path / 'results.json'
    path.write_text(written.to_json())
    read = Results.from_file(path)
    assert read.about == written.about
    assert read.measurements == [cell(OURS, 1.5, rounds=[1.5, 2.5])]


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{}',
        '{"about": {}, "skipped": [], "measurements": []}',
        '{"about": {"tag": 3}, "skipped": [], "measurements": []}',
        '{"about": {"tag": "3"}, "skipped": [], "measurements": [{"a": 1}]}',
    ],
)
def test_what_is_no_result_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=f'{path} is not a result of'):
        Results.from_file(path)


def test_pythons_are_merged(tmp_path: Path) -> None:
    for run_of in (
        results('3.13', cell(OURS, 300), cell(LOCK, 200), cell(FAIR, 400)),
        results('3.13t', cell(OURS, 100), cell(LOCK, 200)),
    ):
        path = tmp_path / f'{run_of.about["tag"]}.json'
        path.write_text(run_of.to_json())
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = run('--output', str(tmp_path), '--merge', *paths)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / 'tables.md').read_text()
    assert text in done.stdout
    lines = text.splitlines()
    assert '|  | 3.13 | 3.13t |' in lines
    assert '| get | 300 ns, **0.67** x Lock | 100 ns, 2.00 x Lock |' in lines
    assert f'| price, one thread: get | {FAIR} | 1.33 | - |' in lines
    assert (tmp_path / 'price-3.13.svg').exists()
    assert (tmp_path / 'price-3.13t.svg').exists()


def test_documentation_shows_the_results_beside_it() -> None:
    folder = ROOT / 'docs' / 'pages' / 'performance'
    runs = [
        Results.from_file(folder / f'{tag}.json')
        for tag in ('3.15', '3.14', '3.13', '3.13t')
    ]
    assert (folder / 'tables.md').read_text() == markdown(runs)
    page = (folder.parent / 'performance.md').read_text()
    for run_of in runs:
        for name, _ in plots(run_of):
            assert f'(performance/{name})' in page
            assert (folder / name).exists()


def test_merge_wants_one_result_of_each_python(tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    path.write_text(results('3.13', cell(OURS, 1)).to_json())
    done = run('--merge', str(path), str(path))
    assert done.returncode == 2
    assert 'one result of each Python, not of 3.13, 3.13' in done.stderr


def test_plots_take_their_colours_from_the_browser() -> None:
    measured = [
        cell(peer.name, number + 1, safe=peer.safe)
        for number, peer in enumerate(PEERS)
    ]
    ((name, svg),) = plots(results('3.13', *measured))
    assert name == 'price-3.13.svg'
    ElementTree.fromstring(svg)
    assert '<title>price, Python 3.13</title>' in svg
    style, drawing = re.split('</style>', svg, maxsplit=1)
    assert 'prefers-color-scheme: dark' in style
    # Each colour that is used has one for light and one for dark.
    used = set(re.findall(r'var\(--([\w-]+)\)', drawing))
    assert {f'c-{peer.name}' for peer in PEERS} <= used
    for name in used:
        light, dark = re.findall(rf'--{name}: (#\w+);', style)
        assert light != dark
    assert re.findall('#[0-9a-f]{6}', drawing) == []
    # Unsafe rivals are marked.
    assert 'AtomicDict*' in drawing


def test_package_that_is_missing_is_named() -> None:
    hide = 'import sys; sys.modules["matplotlib"] = None; '
    run_it = (
        'import runpy; runpy.run_module("benchmarks", run_name="__main__")'
    )
    done = subprocess.run(
        [sys.executable, '-c', hide + run_it],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'matplotlib' in line
    assert line.endswith("in the clone, pip install '.[benchmarks]'")
