"""The example that goes beyond one process, on a real Redis server.

Where there is none, or a package is not installed, its tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip('proxystore')
pytest.importorskip('redis')
pytest.importorskip('distributed')

import beyond_one_process
import redis

from proxystore_local import LocalConnector
from tests.support.processes import ROOT
from tests.support.processes import run_apart

HOST = '127.0.0.1'
SCRIPT = ROOT / 'docs' / 'examples' / 'beyond_one_process.py'
FOLDER = json.__path__[0]


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The port of a Redis server, which has to be empty again in the end."""
    program = shutil.which('redis-server')
    if program is None:
        pytest.skip('no redis-server is installed')
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [
            *(program, '--bind', HOST, '--port', str(port)),
            *('--dir', str(tmp_path), '--save', ''),
        ],
        stdout=subprocess.PIPE,
        encoding='utf-8',
    ) as server:
        try:
            assert server.stdout is not None
            assert any('Ready to accept' in line for line in server.stdout)
            yield port
            with redis.Redis(HOST, port) as client:
                assert client.dbsize() == 0
        finally:
            server.kill()


@pytest.mark.parametrize(
    'options',
    [
        '--connector local',
        '--connector multi',
        '--connector redis --workers processes',
        '--connector redis --workers dask',
    ],
)
def test_each_file_is_restored(port: int, options: str) -> None:
    # Dask may warn as it likes.
    flags = [] if 'dask' in options else ['-X', 'dev', '-W', 'error']
    code, printed = run_apart(
        *(*flags, str(SCRIPT), FOLDER, '--redis-port', str(port)),
        *options.split(),
    )
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith('OK: ')


@pytest.mark.parametrize('workers', ['processes', 'dask'])
def test_ctrl_c_leaves_nothing_in_redis(port: int, workers: str) -> None:
    # When a worker, in another process, has done its first file. A terminal
    # sends it to the whole group of processes.
    program = """if True:
        import multiprocessing
        import os
        import signal
        import sys

        sys.path.insert(0, 'docs/examples')
        import beyond_one_process as example

        as_completed = example.as_completed

        def interrupted(jobs):
            yield next(as_completed(jobs))
            assert multiprocessing.active_children()
            os.killpg(0, signal.SIGINT)
            yield from as_completed(jobs)

        os.setpgid(0, 0)
        example.as_completed = interrupted
        example.main()
    """
    code, printed = run_apart(
        *('-c', program, FOLDER, '--redis-port', str(port)),
        *('--workers', workers, '--connector', 'redis'),
    )
    assert code == -signal.SIGINT, printed
    assert printed.count('Traceback') == 1
    assert printed.endswith('\nKeyboardInterrupt\n')


def test_a_faulty_connector_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LocalConnector, 'evict', lambda self, key: None)
    with pytest.raises(SystemExit, match=' objects were left'):
        beyond_one_process.main([FOLDER])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('--workers dask', 'use --connector redis, or --workers threads$'),
        ('--workers processes --connector multi', 'or --workers threads$'),
        # No server can have such a port.
        ('--connector redis --redis-port 0', '^no Redis server at .*:0 '),
    ],
)
def test_what_cannot_work_is_refused(arguments: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        beyond_one_process.main(arguments.split())
