"""The benchmarks run with what is installed, and pages show their results."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('matplotlib', reason='the extra benchmarks is missing')

from benchmarks import command
from benchmarks import INSTALL
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
OPTIONAL = {peer.needs for peer in PEERS if peer.needs}


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, '-m', 'benchmarks', *arguments],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # Ctrl-C is for all processes of a session.
        start_new_session=True,
    )


def error_of(*arguments: str | Path) -> tuple[int, str]:
    with start(*arguments) as child:
        _, error = child.communicate(timeout=100)
    return child.returncode, error


def replace_package(
    patch: pytest.MonkeyPatch, folder: Path, package: str, source: str
) -> None:
    """Let processes that are started from now on import this package."""
    (folder / f'{package}.py').write_text(source, encoding='utf-8')
    paths = [str(folder), *sys.path]
    patch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))


@pytest.mark.parametrize('peer', find_peers(), ids=lambda peer: peer.name)
def test_peer_is_a_connector(peer: Peer) -> None:
    connector = peer.make()
    key = connector.put(b'one')
    assert connector.get(key) == b'one'
    connector.set(key, b'two')
    assert connector.get(key) == b'two'
    missing = connector.new_key()
    assert not connector.exists(missing)
    assert connector.get(missing) is None
    keys = connector.put_batch([b'three', b'four'])
    assert connector.get_batch([*keys, missing]) == [b'three', b'four', None]
    assert connector.exists(key)
    connector.evict(key)
    connector.evict(key)
    assert not connector.exists(key)
    assert not peer.make().exists(keys[0])


@pytest.mark.parametrize('hidden', [set(), OPTIONAL], ids=['all', 'few'])
@pytest.mark.parametrize('workload', WORKLOADS)
def test_only(
    workload: str,
    hidden: set[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in hidden:
        fault = 'raise ModuleNotFoundError(__name__)'
        replace_package(monkeypatch, tmp_path, package, fault)
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(command, 'QUICK', TINY)
    arguments = ['--quick', '--only', workload, '--output', str(tmp_path)]
    if is_missing(WORKLOADS[workload]):
        with pytest.raises(SystemExit, match='2'):
            command.main(arguments)
        needs = f'{workload} needs proxystore, which is not installed. '
        assert capsys.readouterr().err.endswith(f'{needs}{INSTALL}\n')
        return
    command.main(arguments)
    printed = capsys.readouterr().out
    (file,) = tmp_path.glob('*.json')
    page = file.with_suffix('.md')
    table = page.read_text(encoding='utf-8')
    results = Results.from_file(file)
    peers = find_peers()
    assert {peer.needs for peer in peers}.isdisjoint(hidden)
    found = {(m.table, m.column, m.peer) for m in results.measurements}
    # ProxyStore's has no len(), and a peer that deadlocks no second number.
    assert found >= {
        (case.table, case.columns[0].name, peer.name)
        for case in find_cases(workload, TINY)
        for peer in peers
        if case.columns[0].name != 'len' or peer.name != 'ProxyStore'
    }
    for m in results.measurements:
        assert 0 <= m.value < math.inf
        assert f'| {m.column} | {m.unit}' in table
    assert f'All tables: {page}. Results: {file}.' in printed
    assert re.search('ours +Lock +RWLockFair +best other', printed)
    absent = {peer.needs for peer in PEERS if peer not in peers}
    assert absent >= hidden
    for package in absent:
        assert f'{package} is not installed' in printed
    assert (INSTALL in printed) == bool(absent)


@pytest.mark.parametrize('package', ['matplotlib', 'tqdm'])
def test_missing_package_is_said_with_the_command(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = f'raise ModuleNotFoundError("no {package}")'
    replace_package(monkeypatch, tmp_path, package, fault)
    assert error_of('--output', tmp_path) == (1, f'no {package}. {INSTALL}\n')


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs POSIX')
def test_ctrl_c_ends_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    # In the middle of a measurement, one that would not end for long.
    hang = f'file = open({str(fifo)!r}, "w"); threading.Event().wait(100)'
    fault = f'import sys, threading\nif "-c" in sys.argv:\n  {hang}'
    replace_package(monkeypatch, tmp_path, 'fasteners', fault)
    only = '--only', 'price', '--output', tmp_path
    with start(*only) as child, fifo.open() as said:
        os.killpg(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=60)
        # It comes to its end once the process that measures is gone.
        assert said.read() == ''
    assert (child.returncode, error) == (130, 'interrupted\n')


def test_closed_pipe_ends_in_silence() -> None:
    with start('--help') as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ''


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('--output LICENSE', "File exists: 'LICENSE'"),
        ('--merge LICENSE', 'LICENSE is not a result of python -m benchmarks'),
        ('--merge {other}', 'other.json is not a result of python -m '),
        ('--merge no/such', "No such file or directory: 'no/such'"),
        ('--merge {old} {old}', 'of each Python, not of 3.13, 3.13'),
    ],
)
def test_wrong_file_is_named_in_one_line(
    arguments: str, message: str, tmp_path: Path
) -> None:
    places = {'other': tmp_path / 'other.json', 'old': PAGES / '3.13.json'}
    places['other'].write_text('{}')
    given = [word.format(**places) for word in arguments.split()]
    code, error = error_of('--output', tmp_path / 'made', *given)
    assert code == 1
    (line,) = error.splitlines()
    assert message in line
    assert [*tmp_path.rglob('*.*')] == [places['other']]


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
        (ours,) = case.run(PEERS[0])
    finally:
        sys.setswitchinterval(interval)
    assert torn > ours == 0


@pytest.mark.skipif(is_missing('proxystore'), reason='needs proxystore')
def test_deadlock_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = 'import threading\nclass ReaderWriterLock:\n'
    hang = '    __getattr__ = lambda *_: threading.Event().wait\n'
    replace_package(monkeypatch, tmp_path, 'fasteners', lock + hang)
    (case,) = find_cases('owned', TINY)
    (hangs,) = (peer for peer in PEERS if peer.name == 'fasteners')
    assert case.run(hangs) == (1,)
    assert case.run(PEERS[0]) == (0, 0)


def test_summary_shows_how_many_times_ours_is_better() -> None:
    get = 'price', 'one thread', 'get'
    threads = 'throughput', '8 threads', '10 % writes'
    measurements = [
        Measurement(*get, 'ours', 100, 'ns'),
        Measurement(*get, 'Lock', 50, 'ns'),
        Measurement(*get, 'RLock', 110, 'ns'),
        Measurement(*get, 'cereggii', 120, 'ns'),
        Measurement(*get, 'AtomicDict', 10, 'ns'),
        Measurement(*threads, 'ours', 30, 'k/s'),
        Measurement(*threads, 'ProxyStore', 10, 'k/s'),
    ]
    about = {'python': 'Python', 'build': 'default'}
    summary = report.summary(Results(about, [], measurements))
    assert re.search(r'get +100 +0.50 lost +- +1.10 RLock +-\n', summary)
    assert re.search(r'8, 10 % writes +30.0 +- +- +- +3.00$', summary)


@pytest.mark.parametrize('results', STORED, ids=lambda r: r.about['tag'])
def test_summary_fits_a_screen(results: Results) -> None:
    summary = report.summary(results)
    lines = summary.splitlines()
    # One more says where the tables are.
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    # No column runs into the next.
    assert not re.search(r'\d{4}\.|lost\S', summary)
    assert summary.isascii()


def test_pages_show_the_results_beside_them(tmp_path: Path) -> None:
    tags = [run.about['tag'] for run in STORED]
    assert tags == ['3.15', '3.14', '3.13', '3.13t']
    files = [str(PAGES / f'{tag}.json') for tag in tags]
    command.main(['--output', str(tmp_path), '--merge', *files])
    made = {path.name for path in tmp_path.iterdir()}
    beside = {path.name for path in PAGES.iterdir()}
    assert beside == made | {'charts.md'} | {f'{tag}.json' for tag in tags}
    for name in sorted(made):
        new, old = ((p / name).read_text() for p in (tmp_path, PAGES))
        if name.endswith('.svg'):
            # Another matplotlib may draw the same results in another way.
            new, old = (str(DIGEST.findall(text)) for text in (new, old))
        assert new == old, f'{name} is stale: merge the results again'
    pages = [PAGES.with_suffix('.md'), PAGES / 'charts.md']
    text = '\n'.join(page.read_text() for page in pages)
    shown = re.findall(r'\((?:performance/)?([\w-]+\.svg)\)', text)
    assert set(shown) == {name for name in made if name.endswith('.svg')}


WON, LOST, SAME = (1, math.inf), (0, 1), (0.9, 1.1)
CALL = 'one thread/(get|set|evict)$'


@pytest.mark.parametrize(
    ('rival', 'what', 'where', 'claim'),
    [
        ('RWLockFair', f'{CALL}|/put$|throughput|p99$', '3.1.*', WON),
        ('RWLockFair', 'get_batch/obj$', '3.1.*', WON),
        ('RWLockFair', 'put_batch/obj$', '3.1.*', SAME),
        ('RWLockFair', r'8 \+ 1/.* max$', '3.1.*', LOST),
        ('Lock', f'{CALL}|throughput/8 ', '3.1([45]|3t)', LOST),
        ('Lock', f'{CALL}|throughput|p99$', '3.13', WON),
        ('Lock', r'8 \+ 1/.* p99$', '3.1[45]', LOST),
        ('Lock', r'8 \+ 1/.* max$', '3.1.*', LOST),
        ('Lock', '/put$|_batch/obj$', '3.1.*', WON),
        ('Lock', 'last missing', '3.1.*', LOST),
        ('RWLockFair', 'last missing', '3.1.*', LOST),
        ('ProxyStore', f'{CALL}|throughput|p99$', '3.1.', LOST),
        ('ProxyStore', '/put$|_batch/obj$', '3.1.', WON),
    ],
)
def test_performance_page_claims_what_the_results_show(
    rival: str, what: str, where: str, claim: tuple[float, float]
) -> None:
    low, high = claim
    ratios = {
        (run.about['tag'], place): report.times_better(cell, rival)
        for run in STORED
        if re.fullmatch(where, run.about['tag'])
        for place, cell in run.cells().items()
        if re.search(what, place)
    }
    assert ratios
    stale = {at: x for at, x in ratios.items() if not low <= x <= high}
    assert not stale, 'the list at the top of performance.md is stale'
