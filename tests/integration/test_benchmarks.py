"""The benchmarks run with what is installed, and pages show their results."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('matplotlib', reason='the extra benchmarks is missing')

from benchmarks import charts
from benchmarks import command
from benchmarks import report
from benchmarks.engine import Effort
from benchmarks.engine import find_cases
from benchmarks.engine import Measurement
from benchmarks.peers import find_peers
from benchmarks.peers import is_missing
from benchmarks.peers import Peer
from benchmarks.peers import PEERS
from benchmarks.report import Results
from benchmarks.workloads import WORKLOADS
from proxystore_local import LocalConnector

ROOT = Path(__file__).parents[2]
PAGES = ROOT / 'docs' / 'pages' / 'performance'
STORED = report.newest_first(map(Results.from_file, PAGES.glob('*.json')))
TINY = Effort(1_000, 1, 1, 1, 0.001, 10, 100, 5, 20)
DIGEST = re.compile(r'\b[0-9a-f]{64}\b')
DRAWN_BY = re.compile(r'Matplotlib v[0-9.]+')
OPTIONAL = sorted({peer.needs for peer in PEERS if peer.needs})

needs_proxystore = pytest.mark.skipif(
    is_missing('proxystore'),
    reason='proxystore is not installed',
)


def start(*arguments: str, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', 'benchmarks', *arguments],
        cwd=ROOT,
        text=True,
        **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, **how},
    )


def run(*arguments: str, **how: Any) -> tuple[int, str, str]:
    with start(*arguments, **how) as child:
        out, err = child.communicate(timeout=100)
        return child.returncode, out, err


def put_in_place(
    patch: pytest.MonkeyPatch,
    folder: Path,
    packages: Iterable[str],
    source: str,
) -> None:
    """Let processes that are started from now on import these packages."""
    for package in packages:
        (folder / f'{package}.py').write_text(source, encoding='utf-8')
    paths = [str(folder), *sys.path]
    patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))


@pytest.mark.parametrize('peer', find_peers(), ids=lambda peer: peer.name)
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


@pytest.mark.parametrize('hidden', [(), OPTIONAL], ids=['all', 'few'])
@pytest.mark.parametrize('workload', WORKLOADS)
def test_only(
    workload: str,
    hidden: Iterable[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fault = 'raise ModuleNotFoundError(__name__)'
    put_in_place(monkeypatch, tmp_path, hidden, fault)
    for package in hidden:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(command, 'QUICK', TINY)
    arguments = ['--quick', '--only', workload, '--output', str(tmp_path)]
    if is_missing(WORKLOADS[workload]):
        with pytest.raises(SystemExit, match='2'):
            command.main(arguments)
        error = capsys.readouterr().err
        (line,) = error.splitlines()
        assert f'{workload} needs proxystore, which is not installed' in line
        cannot = ', and cannot be on free-threaded builds.'
        end = cannot if report.FREE_THREADED else command.INSTALL
        assert line.endswith(end)
        return
    command.main(arguments)
    printed = capsys.readouterr().out
    (file,) = tmp_path.glob('*.json')
    results = Results.from_file(file)
    peers = find_peers()
    assert {peer.needs for peer in peers}.isdisjoint(hidden)
    found = {(m.table, m.column, m.peer) for m in results.measurements}
    assert found >= {
        (case.table, case.columns[0].name, peer.name)
        for case in find_cases(workload, TINY)
        for peer in peers
        if case.columns[0].name != 'len' or peer.name != 'ProxyStore'
    }
    assert all(0 <= m.value < math.inf for m in results.measurements)
    assert str(file) in printed
    assert re.search('ours +Lock +RWLockFair +(best|worst) other', printed)
    table = file.with_suffix('.md').read_text(encoding='utf-8')
    for m in results.measurements:
        assert f'| {m.column} | {m.unit}' in table
    for package in hidden:
        assert f'{package} is not installed' in printed
    # The command is there if it helps.
    absent = {peer.needs for peer in PEERS if peer not in peers}
    absent -= {'proxystore'} if report.FREE_THREADED else set()
    assert (command.INSTALL in printed) == bool(absent)


def test_failure_of_a_peer_ends_it_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_in_place(monkeypatch, tmp_path, ['fasteners'], '')
    code, _, error = run('--only', 'memory', '--output', str(tmp_path))
    assert code == 1
    assert 'has no attribute' in error
    assert not [*tmp_path.glob('*.json')]


class TornConnector(LocalConnector):
    """A connector whose reader sees half of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    def __len__(self) -> int:
        size = super().__len__()
        if size:
            self.looked.set()
        return size

    def put_batch(self, objs: Iterable[Any]) -> list[Any]:
        keys = [self.put(obj) for obj in [*objs][1:]]
        assert self.looked.wait(60)
        return [*keys, self.put(b'')]


def test_torn_states_are_seen() -> None:
    (case,) = find_cases('torn', TINY)
    interval = sys.getswitchinterval()
    try:
        (torn,) = case.run(Peer('torn', '', '', TornConnector))
        (ours,) = case.run(Peer('ours', '', '', LocalConnector))
    finally:
        sys.setswitchinterval(interval)
    assert torn > ours == 0


@needs_proxystore
def test_deadlock_is_seen(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hang = 'import threading\nwait = threading.Event().wait\n'
    lock = 'class ReaderWriterLock:\n    acquire_read_lock = wait\n'
    more = '    acquire_write_lock = release_write_lock = wait\n'
    more += '    release_read_lock = wait\n'
    put_in_place(monkeypatch, tmp_path, ['fasteners'], hang + lock + more)
    (case,) = find_cases('owned', TINY)
    (hangs,) = (peer for peer in PEERS if peer.name == 'fasteners')
    assert case.run(hangs) == (1,)
    assert case.run(PEERS[0]) == (0, 0)


def cell(peer: str, value: float, **changes: Any) -> Measurement:
    place = 'price', 'one thread', 'get'
    measurement = Measurement(*place, peer, value, 'ns')
    return dataclasses.replace(measurement, **changes)


def test_summary_shows_how_many_times_ours_is_better() -> None:
    more = {'workload': 'throughput', 'unit': 'k/s'}
    more |= {'table': '8 threads', 'column': '10 % writes'}
    summary = report.summary(
        Results(
            {'python': 'Python', 'build': 'default'},
            [],
            [
                *(cell('ours', 100), cell('Lock', 50), cell('RLock', 110)),
                *(cell('AtomicDict', 10), cell('cereggii', 120)),
                *(cell('ours', 30, **more), cell('ProxyStore', 10, **more)),
            ],
        ),
    )
    title, _, get, _, threads = summary.splitlines()
    assert title.endswith('1 of 3 lost')
    assert get.split() == [
        'get',
        '100',
        '0.50',
        'lost',
        '-',
        '1.10',
        'RLock',
        '-',
    ]
    assert threads.split()[-5:] == ['30.0', '-', '-', '-', '3.00']


@pytest.mark.parametrize('results', STORED, ids=lambda r: r.about['tag'])
def test_summary_fits_a_screen(results: Results) -> None:
    faults = [
        cell(peer, 100_000, workload=workload, table=table, column=column)
        for workload in report.COUNTED
        for case in find_cases(workload, TINY)
        for table, column in [(case.table, c.name) for c in case.columns]
        for peer in (p.name for p in PEERS)
    ]
    lines = report.summary(
        dataclasses.replace(
            results,
            measurements=[*results.measurements, *faults],
        ),
    ).splitlines()
    # One more says where the tables are.
    assert len(lines) == 23
    assert max(map(len, lines)) <= 80
    # No column runs into the next.
    assert not re.search(r'\d{4}\.|lost\S', '\n'.join(lines))
    assert '\n'.join(lines).isascii()


def test_pages_show_the_results_beside_them(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert [r.about['tag'] for r in STORED] == [
        '3.15',
        '3.14',
        '3.13',
        '3.13t',
    ]
    for file in PAGES.glob('*.json'):
        shutil.copy(file, tmp_path)
    files = map(str, tmp_path.glob('*.json'))
    command.main(['--output', str(tmp_path), '--merge', *files])
    lines = capsys.readouterr().out.splitlines()
    # What it prints fits a screen, the newest Python first.
    assert lines[1].split() == [run.about['tag'] for run in STORED]
    assert len(lines) <= 24
    assert max(map(len, lines[:-1])) <= 80
    made = {path.name for path in tmp_path.iterdir()}
    shown = {path.name for path in PAGES.iterdir()} - {'charts.md'}
    assert made == shown
    for name in sorted(made):
        new, old = ((p / name).read_text() for p in (tmp_path, PAGES))
        # Another matplotlib may draw the same results in another way.
        if DRAWN_BY.findall(new) != DRAWN_BY.findall(old):
            new, old = (str(DIGEST.findall(text)) for text in (new, old))
        assert new == old, f'{name} is stale: merge the results again'
    pages = [PAGES.with_suffix('.md'), PAGES / 'charts.md']
    text = '\n'.join(page.read_text() for page in pages)
    assert {name for name, _ in charts.draw(STORED)} == set(
        re.findall(r'\((?:performance/)?([\w-]+\.svg)\)', text),
    )


WON, LOST, SAME = (1, math.inf), (0, 1), (0.9, 1.1)
CALL = 'One thread: (get|set|evict)$'


@pytest.mark.parametrize(
    ('rival', 'what', 'where', 'claim'),
    [
        ('RWLockFair', f'{CALL}|: put$|Threads|p99', '3.1.*', WON),
        ('RWLockFair', 'of 1000', '3.1.*', SAME),
        ('RWLockFair', 'Longest', '3.1.*', LOST),
        ('Lock', f'{CALL}|Threads: 8,', '3.1([45]|3t)', LOST),
        ('Lock', f'{CALL}|Threads|p99', '3.13', WON),
        ('Lock', 'p99', '3.1[45]', LOST),
        ('Lock', 'Longest', '3.1.*', LOST),
        ('Lock', ': put', '3.1.*', WON),
        ('Lock', 'get_batch', '3.1([45]|3t)', WON),
        ('Lock', 'get_batch', '3.13', LOST),
        ('ProxyStore', f'{CALL}|Threads|p99', '3.1.', LOST),
        ('ProxyStore', ': put|get_batch', '3.1.', WON),
    ],
)
def test_performance_page_claims_what_the_results_show(
    rival: str,
    what: str,
    where: str,
    claim: tuple[float, float],
) -> None:
    low, high = claim
    ratios = {
        (run.about['tag'], headline.place): report.times_better(
            *(run.cells()[headline.place][peer] for peer in ('ours', rival)),
        )
        for run in STORED
        if re.fullmatch(where, run.about['tag'])
        for headline in report.HEADLINES
        if re.search(what, f'{headline.title}: {headline.label}')
    }
    assert ratios
    stale = {at: x for at, x in ratios.items() if not low <= x <= high}
    assert not stale, 'the list at the top of performance.md is stale'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--only', 'speed'], "invalid choice: 'speed'"),
        (['--output', 'LICENSE'], "File exists: 'LICENSE'"),
        (['--merge', 'no/such/file.json'], 'no/such/file.json'),
        (['--merge', 'LICENSE'], 'LICENSE is not a result of python -m'),
        (['--merge', *[str(PAGES / '3.13.json')] * 2], 'not of 3.13, 3.13'),
    ],
)
def test_bad_arguments_are_named(arguments: list[str], message: str) -> None:
    code, out, error = run(*arguments)
    *usage, line = error.splitlines()
    assert (code, out) == (2, '')
    assert message in line
    assert bool(usage) == ('invalid choice' in line)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
def test_folder_that_cannot_be_written_to_is_named() -> None:
    # Not even root makes files there.
    code, out, error = run('--quick', '--output', '/proc/self')
    assert (code, out) == (2, '')
    (line,) = error.splitlines()
    assert 'argument --output: ' in line


def test_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / 'tables.md').mkdir()
    file = str(PAGES / '3.13.json')
    code, out, error = run('--merge', file, '--output', str(tmp_path))
    assert (code, out) == (1, '')
    (line,) = error.splitlines()
    assert 'tables.md' in line


@pytest.mark.parametrize('package', ['matplotlib', 'tqdm'])
def test_missing_package_is_said_with_the_command(
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = f'raise ModuleNotFoundError("no {package}")'
    put_in_place(monkeypatch, tmp_path, [package], fault)
    file = str(PAGES / '3.13.json')
    code, _, error = run('--merge', file, '--output', str(tmp_path))
    (line,) = error.splitlines()
    assert code == 1
    assert line.startswith(f'no {package}. ')
    assert line.endswith("-m pip install '.[benchmarks]'")


def test_help_has_sentences_and_defaults() -> None:
    code, out, error = run('--help', env=os.environ | {'COLUMNS': '500'})
    assert (code, error) == (0, '')
    described = re.findall(r'^  -.*?(?:\n {9,}|  )(\S.*)$', out, re.MULTILINE)
    assert len(described) == 5
    for sentence in described:
        assert sentence[0].isupper()
        assert sentence.endswith('.')
    assert out.count('default') >= 3


def test_terminal_may_know_ascii_only(tmp_path: Path) -> None:
    env = os.environ | {'PYTHONIOENCODING': 'ascii'}
    only = ('--only', 'memory', '--output', str(tmp_path))
    code, out, error = run('--quick', *only, env=env)
    # No progress bar, as standard error is no terminal.
    assert (code, error) == (0, '')
    assert len(out.splitlines()) <= 24


@pytest.mark.parametrize('arguments', [['--help'], ['--only', 'memory']])
def test_closed_pipe_ends_in_silence(
    arguments: list[str],
    tmp_path: Path,
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, 'w') as pipe:
        output = ('--output', str(tmp_path))
        _, _, error = run(*arguments, *output, stdout=pipe)
    assert error == ''


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs POSIX')
def test_ctrl_c_ends_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    # In the middle of a measurement, one that would not end for long.
    hang = f'file = open({str(fifo)!r}, "w"); threading.Event().wait(100)'
    fault = f'import sys, threading\nif "-c" in sys.argv:\n  {hang}'
    put_in_place(monkeypatch, tmp_path, ['fasteners'], fault)
    with start('--only', 'price', '--output', str(tmp_path)) as child:
        with fifo.open() as said:
            child.send_signal(signal.SIGINT)
            _, error = child.communicate(timeout=60)
            # It comes to its end once the process that measures is gone.
            assert said.read() == ''
        assert (child.returncode, error) == (130, 'interrupted\n')
