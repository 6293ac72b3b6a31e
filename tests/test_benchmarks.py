"""The benchmarks run, fill every cell, and get their ratios right."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math
import statistics
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import FAIR
from benchmarks.peers import find_peers
from benchmarks.peers import LOCK
from benchmarks.peers import OURS
from benchmarks.peers import Peer
from benchmarks.peers import PROXYSTORE
from benchmarks.report import Floor
from benchmarks.report import floors
from benchmarks.report import floors_table
from benchmarks.report import tables
from benchmarks.workloads import Case
from benchmarks.workloads import Column
from benchmarks.workloads import KEYS
from benchmarks.workloads import measure
from benchmarks.workloads import Measurement
from benchmarks.workloads import QUICK
from benchmarks.workloads import waits
from benchmarks.workloads import WORKLOADS
from proxystore_local import LocalConnector
from proxystore_local import LocalKey

ROOT = Path(__file__).parent.parent

PEERS, SKIPPED = find_peers()

HAS_PROXYSTORE = importlib.util.find_spec('proxystore') is not None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-m', 'benchmarks', *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
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


def test_quick_run_fills_every_cell_of_every_table(tmp_path: Path) -> None:
    path = tmp_path / 'results.json'
    done = run('--quick', '--seconds', '0.01', '--json', str(path))
    assert done.returncode == 0, done.stderr
    # What comes first is what this machine calls itself, of any length.
    _, _, tables = done.stdout.partition('\n\n')
    assert max(map(len, tables.splitlines())) <= 120
    assert 'GIL' in done.stdout
    assert '100%' in done.stderr
    results = json.loads(path.read_text())
    assert results['skipped'] == SKIPPED
    assert all(sentence in done.stdout for sentence in SKIPPED)

    cells = {
        (m['workload'], m['table'], m['column'], m['peer']): m['value']
        for m in results['measurements']
    }
    assert cells.keys() == {
        (case.workload, case.table, column.name, peer.name)
        for workload in WORKLOADS.values()
        for case in workload(QUICK)
        for column in case.columns
        for peer in PEERS
    } - {('price', 'one thread', 'len', PROXYSTORE)}
    assert {name for name, *_ in cells} == {*WORKLOADS}
    assert all(0 < value < math.inf for value in cells.values())

    lines = done.stdout.splitlines()
    for _, table, column, peer in cells:
        assert any(line.endswith(f': {table}') for line in lines)
        assert any(column in line for line in lines)
        assert any(line.startswith(f'{peer} ') for line in lines)

    compared = results['floors']
    assert {f['what'].partition(',')[0] for f in compared} == {
        'price',
        'throughput',
        'waits',
        'memory',
    }
    assert all(0 < f['times_better'] < math.inf for f in compared)


def test_only_selects_workloads() -> None:
    done = run('--quick', '--only', 'memory')
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
        (['--json', 'no/such/folder.json'], 'no/such/folder.json'),
        (['--json'], 'expected one argument'),
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
    assert names[:3] == [OURS, LOCK, FAIR]
    assert (PROXYSTORE in names) == HAS_PROXYSTORE
    assert len(SKIPPED) == (not HAS_PROXYSTORE)
    assert len(names) == len(set(names)) == 8 + HAS_PROXYSTORE


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


def test_peers_take_turns_and_rounds_are_combined() -> None:
    turns: list[str] = []

    def peer(name: str) -> Peer:
        def make() -> LocalConnector:
            turns.append(name)
            return LocalConnector()

        return Peer(name, '', make)

    def number(connector: object) -> Sequence[float]:
        return (len(turns), -len(turns))

    case = Case(
        'price',
        'one thread',
        (
            Column('least', 'ns', 'lower', min),
            Column('middle', 'ns', 'lower', statistics.median),
        ),
        3,
        number,
    )
    results = measure([case], [peer('a'), peer('b')], lambda: None)
    assert turns == ['a', 'b'] * 3
    assert list(results[-1].rounds) == [-2, -4, -6]
    assert [(m.peer, m.column, m.value) for m in results] == [
        ('a', 'least', 1),
        ('a', 'middle', -3),
        ('b', 'least', 2),
        ('b', 'middle', -4),
    ]


@pytest.mark.parametrize(
    ('workload', 'column'),
    [
        ('price', 'get'),
        ('throughput', '0 % writes'),
        ('waits', 'reads'),
        ('growth', '8 alive'),
        ('growth', '1,000 ended'),
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

        def put(self, obj: Any) -> LocalKey:
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
            assert found[f'{who} p99'] <= found[f'{who} max']


def test_table_shows_how_many_times_ours() -> None:
    title, table = tables([cell(OURS, 200), cell(LOCK, 50.0)])
    assert title.endswith(': one thread')
    head, units, ours, lock = table.splitlines()
    assert head.split() == ['get']
    assert units.split() == ['ns,', 'lower']
    assert ours.split() == [OURS, '200', '(1.00)']
    assert lock.split() == [LOCK, '50.0', '(0.25)']


def test_table_leaves_out_what_a_peer_cannot_do() -> None:
    _, table = tables(
        [
            cell(OURS, 1),
            cell(OURS, 1, column='len'),
            cell(PROXYSTORE, 1),
        ],
    )
    assert table.splitlines()[-1].split() == [
        PROXYSTORE,
        '1.00',
        '(1.00)',
        '-',
    ]


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
    assert table.splitlines()[-1].split()[1] == text


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
        Floor('memory, one thread: put', 'plain dict', 0.5),
    ]
    lines = floors_table(results).splitlines()
    assert 'above 1 ours is better' in lines[0]
    assert lines[2].split()[-3:] == ['against', FAIR, '4.00']
