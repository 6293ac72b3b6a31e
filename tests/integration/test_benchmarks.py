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

from benchmarks import report
from benchmarks.__main__ import INSTALL
from benchmarks.__main__ import main
from benchmarks.engine import Figures
from benchmarks.peers import is_missing
from benchmarks.peers import PEERS
from benchmarks.workloads import Effort
from benchmarks.workloads import torn
from benchmarks.workloads import WORKLOADS
from proxystore_local import LocalConnector

ROOT = Path(__file__).parents[2]
PAGES = ROOT / 'docs' / 'pages' / 'performance'
STORED = report.read(PAGES.glob('*.json'))
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


def measure(
    patch: pytest.MonkeyPatch, folder: Path, *workloads: str
) -> report.Results:
    patch.setattr('benchmarks.__main__.QUICK', TINY)
    only = [argument for name in workloads for argument in ('--only', name)]
    main(['--quick', *only, '--output', str(folder)])
    (run,) = report.read(folder.glob('*.json'))
    return run


@pytest.mark.parametrize('workload', WORKLOADS)
def test_workload_runs(
    workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_missing(package := WORKLOADS[workload].needs):
        pytest.skip(f'{package} is not installed')
    figures = measure(monkeypatch, tmp_path, workload).figures
    # Pages have these numbers, of the newest Python.
    places = [it for it in STORED[0].figures if it.startswith(f'{workload}/')]
    assert [*figures] == places
    names = {name for name, it in PEERS.items() if not is_missing(it.needs)}
    for peers in figures.values():
        assert {*peers} == names
        for median, least, most in peers.values():
            assert 0 <= least <= median <= most


def test_few_packages_suffice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for package in ('cereggii', 'fasteners', 'proxystore'):
        fault = 'raise ModuleNotFoundError(__name__)'
        replace_package(monkeypatch, tmp_path, package, fault)
        monkeypatch.setitem(sys.modules, package, None)
    figures = measure(monkeypatch, tmp_path, 'store', 'price').figures
    assert {place.partition('/')[0] for place in figures} == {'price'}
    for peers in figures.values():
        assert {*peers} == {'ours', 'Lock', 'RWLockFair'}
    printed = capsys.readouterr().out
    assert 'store is skipped: proxystore is not installed.\n' in printed
    assert 'fasteners is skipped: ' in printed
    assert INSTALL in printed
    with pytest.raises(SystemExit, match='nothing to measure'):
        measure(monkeypatch, tmp_path, 'store')


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
    ((_, found),) = torn(TINY, TornConnector)
    ((_, none),) = torn(TINY, LocalConnector)
    assert found > none == 0


def test_ratios_say_how_many_times_ours_is_better() -> None:
    # The median, the least and the most: a price, a rate and a longest wait.
    figures: Figures = {
        'price/get': {'ours': (100, 90, 130), 'Lock': (50, 45, 70)},
        report.THREADS[1]: {'ours': (30, 20, 40), 'Lock': (10, 5, 15)},
        report.WAITS[-1]: {'ours': (1e3, 1e3, 2e3), 'Lock': (1e3, 1e3, 1e4)},
    }
    # On 3.13 a Lock counts at its faster speed.
    for tag, ratios in (
        ('3.14', ['**0.50**', '3.00', '5.00 (2.00 and 10.0 ms)']),
        ('3.13', ['**0.45**', '2.00', '5.00 (2.00 and 10.0 ms)']),
    ):
        run = report.Results({'tag': tag, 'python': tag}, figures)
        assert [run.comparison(place, 'Lock') for place in figures] == ratios
        assert run.comparison('price/get', 'ProxyStore') == '-'
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
    main(['--output', str(tmp_path), '--merge', *files])
    made = {path.name for path in tmp_path.iterdir()}
    beside = {path.name for path in PAGES.iterdir()}
    assert beside == made | {f'{run.tag}.json' for run in STORED}
    for name in made:
        new, old = ((p / name).read_text() for p in (tmp_path, PAGES))
        if name.endswith('.svg'):
            # Another matplotlib may draw the same results in another way.
            new, old = re.findall(r'\b[0-9a-f]{64}\b', new + old)
        assert new == old, f'{name} is stale: merge the results again'


def test_readme_shows_the_results() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    shown = text.partition('<!-- speed -->')[2].partition('<!-- /speed -->')[0]
    section = report.sections(STORED)['readme-speed']
    assert shown.strip() == section
