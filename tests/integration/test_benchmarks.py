"""The benchmarks run with what is installed, and pages show their results."""

from __future__ import annotations

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
from benchmarks.engine import Figure
from benchmarks.peers import is_missing
from benchmarks.peers import Peer
from benchmarks.peers import PEERS
from benchmarks.workloads import Effort
from benchmarks.workloads import WORKLOADS
from proxystore_local import LocalConnector

ROOT = Path(__file__).parents[2]
PAGES = ROOT / 'docs' / 'pages' / 'performance'
STORED = [*map(report.Results.from_file, sorted(PAGES.glob('*.json')))]
DIGEST = re.compile(r'\b[0-9a-f]{64}\b')
OPTIONAL = {peer.needs for peer in PEERS if peer.needs}
TINY = Effort(calls=10, best_of=1, processes=1, seconds=0.001, batches=5)


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


def replace_package(
    patch: pytest.MonkeyPatch, folder: Path, package: str, source: str
) -> None:
    """Let processes that are started from now on import this package."""
    (folder / f'{package}.py').write_text(source)
    patch.setenv(
        'PYTHONPATH', os.pathsep.join(filter(None, [str(folder), *sys.path]))
    )


@pytest.mark.parametrize(
    ('workload', 'hidden'),
    [
        *[pytest.param(name, set(), id=name) for name in WORKLOADS],
        *[
            pytest.param(name, OPTIONAL, id=f'{name} with few packages')
            for name in ('price', 'store')
        ],
    ],
)
def test_workload_runs(
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
    if is_missing(needed := WORKLOADS[workload].needs):
        with pytest.raises(SystemExit, match='2'):
            command.main(arguments)
        said = f'{workload} needs {needed}, which is not installed. {INSTALL}'
        assert said in capsys.readouterr().err
        return
    command.main(arguments)
    (file,) = tmp_path.glob('*.json')
    figures = report.Results.from_file(file).figures
    names = [
        name for names, _ in WORKLOADS[workload].cases(TINY) for name in names
    ]
    assert [*figures] == [f'{workload}/{name}' for name in names]
    absent = {peer.name for peer in PEERS if is_missing(peer.needs)}
    for peers in figures.values():
        assert {*peers} == {peer.name for peer in PEERS} - absent
        assert all(0 <= f.least <= f.median <= f.most for f in peers.values())
    printed = capsys.readouterr().out
    for name in absent:
        assert f'{name} is skipped: ' in printed
    assert (INSTALL in printed) == bool(absent)


def test_missing_package_is_said_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = 'raise ModuleNotFoundError("no tqdm")'
    replace_package(monkeypatch, tmp_path, 'tqdm', fault)
    with start('--help') as child:
        _, error = child.communicate(timeout=60)
    assert (child.returncode, error) == (1, f'no tqdm. {INSTALL}\n')


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


class TornConnector(LocalConnector):
    """A connector whose readers see a part of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = threading.Event()

    def __len__(self) -> int:
        if size := super().__len__():
            self.looked.set()
        return size

    def put_batch(self, objs: Iterable[Any]) -> list[Any]:
        keys = [self.put(obj) for obj in [*objs][1:]]
        assert self.looked.wait(60)
        return [*keys, self.put(b'')]


def test_torn_states_are_seen() -> None:
    ((_, run),) = WORKLOADS['torn'].cases(TINY)
    (torn,) = run(Peer('torn', '', TornConnector))
    (ours,) = run(PEERS[0])
    assert torn > ours == 0


def test_ratios_say_how_many_times_ours_is_better() -> None:
    calls = {'ours': Figure(100, 90, 130), 'Lock': Figure(50, 45, 70)}
    rates = {'ours': Figure(30, 20, 40), 'Lock': Figure(10, 5, 15)}
    waits = {'ours': Figure(1e3, 1e3, 2e3), 'Lock': Figure(1e3, 1e3, 1e4)}
    places = report.CALLS[0], report.THREADS[1], report.WAITS[-1]
    figures = dict(zip(places, (calls, rates, waits)))
    # On 3.13 a Lock counts at its faster speed.
    for tag, ratios in (
        ('3.14', ['**0.50**', '3.00', '5.00 (2.00 and 10.0 ms)']),
        ('3.13', ['**0.45**', '2.00', '5.00 (2.00 and 10.0 ms)']),
    ):
        run = report.Results({'tag': tag, 'python': tag}, figures)
        assert [run.comparison(place, 'Lock') for place in places] == ratios
        assert run.comparison(places[0], 'ProxyStore') == '-'
        first = ratios[0].strip('*')
        line = rf'get +100 +{first}! +- +- +- +-\n'
        assert re.search(line, report.summary(run))


@pytest.mark.parametrize('run', STORED, ids=lambda run: run.tag)
def test_summary_fits_a_screen(run: report.Results) -> None:
    summary = report.summary(run)
    lines = summary.splitlines()
    # One more says where the files are.
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80
    assert summary.isascii()
    assert not re.search(r'\d{4}|[.!]\d*\.', summary.split('\n', 1)[1])


def test_pages_show_the_results_beside_them(tmp_path: Path) -> None:
    files = [str(PAGES / f'{run.tag}.json') for run in STORED]
    command.main(['--output', str(tmp_path), '--merge', *files])
    made = {path.name for path in tmp_path.iterdir()}
    beside = {path.name for path in PAGES.iterdir()}
    assert beside == made | {f'{run.tag}.json' for run in STORED}
    for name in made:
        new, old = ((p / name).read_text() for p in (tmp_path, PAGES))
        if name.endswith('.svg'):
            # Another matplotlib may draw the same results in another way.
            new, old = (DIGEST.findall(text)[0] for text in (new, old))
        assert new == old, f'{name} is stale: merge the results again'


def test_readme_shows_the_results() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    shown = text.partition('<!-- speed -->')[2].partition('<!-- /speed -->')[0]
    section = report.sections(report.newest_first(STORED))['readme-speed']
    assert shown.strip() == section
