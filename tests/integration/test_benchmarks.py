"""The benchmarks run with what is installed, and pages show their results."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import report
from benchmarks.__main__ import main
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


@pytest.fixture(autouse=True)
def _set_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Processes import what is in this folder, rather than packages.
    path = os.pathsep.join(filter(None, [str(tmp_path), *sys.path]))
    monkeypatch.setenv('PYTHONPATH', path)
    monkeypatch.setattr('benchmarks.__main__.QUICK', TINY)


@pytest.mark.parametrize('workload', WORKLOADS)
def test_workload_runs(workload: str, tmp_path: Path) -> None:
    if is_missing(package := WORKLOADS[workload].needs):
        pytest.skip(f'{package} is not installed')
    main(['--quick', '--only', workload, '--output', str(tmp_path)])
    (run,) = report.read(tmp_path.glob('*.json'))
    # Pages show these numbers, of the newest Python.
    places = [it for it in STORED[0].figures if it.startswith(f'{workload}/')]
    assert [*run.figures] == places
    names = {name for name, it in PEERS.items() if not is_missing(it.needs)}
    for peers in run.figures.values():
        assert {*peers} == names
        for median, *_ in peers.values():
            assert median > 0 or workload == 'torn'


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


@pytest.mark.skipif(not hasattr(os, 'mkfifo'), reason='needs POSIX')
def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    fifo = tmp_path / 'fifo'
    os.mkfifo(fifo)
    # Measures for long, and says if it is in a group of its own.
    hangs = f"""\
import os, sys, threading
if '-c' in sys.argv:
    file = open({str(fifo)!r}, 'w')
    print(os.getpgid(0) == os.getpid(), file=file, flush=True)
    threading.Event().wait(100)
"""
    (tmp_path / 'fasteners.py').write_text(hangs)
    only = '--only', 'price', '--output', tmp_path
    with start(*only) as child, fifo.open() as said:
        own_group = said.readline()
        os.killpg(child.pid, signal.SIGINT)
        _, error = child.communicate(timeout=60)
        # It comes to its end once the process that measures is gone.
        assert said.read() == ''
    assert own_group == 'True\n'
    assert (child.returncode, error) == (130, 'interrupted\n')


def test_closed_pipe_ends_in_silence() -> None:
    with start('--help') as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == ''


class TornConnector(LocalConnector):
    def put_batch(self, objs: Iterable[Any]) -> list[Any]:
        return super().put_batch([*objs][1:])


def test_torn_states_are_seen() -> None:
    ((_, found),) = torn(TINY, TornConnector)
    ((_, none),) = torn(TINY, LocalConnector)
    assert found > none == 0


def test_ratios_say_how_many_times_ours_is_better() -> None:
    # The median, the least and the most: of a price, a rate and a long wait.
    get = {'ours': (100, 90, 130), 'Lock': (50, 45, 70)}
    rate = {'ours': (30, 20, 40), 'Lock': (10, 5, 15)}
    longest = {'ours': (900, 800, 2000), 'Lock': (700, 600, 10_000)}
    places = report.CALLS[0], report.THREADS[1], report.WAITS[-1]
    figures = dict(zip(places, (get, rate, longest)))
    for tag, ratios in (
        ('3.14', ['**0.50**', '3.00', '5.00 (2.00 and 10.0 ms)']),
        # On 3.13 a Lock counts at its faster speed.
        ('3.13', ['**0.45**', '2.00', '5.00 (2.00 and 10.0 ms)']),
    ):
        run = report.Results({'tag': tag, 'python': tag}, figures)
        assert [run.ratio(place, 'Lock') for place in places] == ratios
    assert run.ratio(places[0], 'ProxyStore') == '-'
    assert re.search(r'get +100 +0.45! +- +- +- +-\n', report.summary(run))


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
    pytest.importorskip('matplotlib')
    stored = [*PAGES.glob('*.json')]
    main(['--output', str(tmp_path), '--merge', *map(str, stored)])
    made = {path.name for path in tmp_path.iterdir()}
    beside = {path.name for path in PAGES.iterdir()}
    assert beside == made | {path.name for path in stored}
    for name in made:
        new, old = ((p / name).read_text() for p in (tmp_path, PAGES))
        if name.endswith('.svg'):
            # Another matplotlib may draw the same results in another way.
            new, old = re.findall(r'\b[0-9a-f]{64}\b', new + old)
        assert new == old, f'{name} is stale: merge the results again'


def test_readme_shows_the_results() -> None:
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    assert report.sections(STORED)['readme-speed'] in text
