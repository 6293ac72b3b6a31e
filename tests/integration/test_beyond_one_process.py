"""Tests of the example that goes beyond one process, and of its page.

The connectors, workers and Redis servers are real. Where there is no
redis-server, or a package is not installed, the tests are reported as skipped.
"""

from __future__ import annotations

import email
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import pytest

pytest.importorskip('proxystore')
pytest.importorskip('redis')
pytest.importorskip('distributed')

import beyond_one_process
import cloudpickle
import redis
from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.multi import Policy
from proxystore.proxy import is_resolved
from proxystore.store import Store

from proxystore_local import LocalConnector
from tests.support.processes import ROOT
from tests.support.processes import run_apart

HOST = '127.0.0.1'
SCRIPT = ROOT / 'docs' / 'examples' / 'beyond_one_process.py'
FOLDER = email.__path__[0]
SPAWN = get_context('spawn')


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


# The program.


@pytest.mark.parametrize(
    'options',
    [
        '--connector local',
        '--connector multi',
        '--connector redis',
        '--connector redis --workers processes',
        '--connector redis --workers dask',
    ],
)
def test_one_program(port: int, options: str) -> None:
    # Dask may warn as it likes.
    flags = [] if 'dask' in options else ['-X', 'dev', '-W', 'error']
    code, printed = run_apart(
        *(*flags, str(SCRIPT), FOLDER, '--redis-port', str(port)),
        *options.split(),
    )
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith('OK: ')


@pytest.mark.parametrize('workers', ['processes', 'dask'])
def test_ctrl_c(port: int, workers: str) -> None:
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


def test_its_own_check_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalConnector, 'evict', lambda self, key: None)
    with pytest.raises(SystemExit, match=' objects were left'):
        beyond_one_process.main([FOLDER])


# What a newcomer gets wrong.


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('--workers dask', 'use --connector redis, or --workers threads$'),
        ('--workers processes --connector multi', 'or --workers threads$'),
        # No server can have such a port.
        ('--connector redis --redis-port 0', '^no Redis server at .*:0 '),
        (
            '--connector redis --redis-port 65536',
            '^no Redis server at .*:65536 ',
        ),
    ],
)
def test_bad_arguments(arguments: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        beyond_one_process.main(arguments.split())


# What reaches another process. The program of the page opens a proxy of a
# local connector there.


def test_error_of_a_proxy_breaks_a_process_pool() -> None:
    # ProxyStore's error can be pickled, but not unpickled. If this fails, it
    # can be, and docs/pages/beyond.md has to say so.
    with (
        Store('local', LocalConnector(), register=True) as store,
        ProcessPoolExecutor(1, mp_context=SPAWN) as pool,
    ):
        proxy = store.proxy(b'spam', populate_target=False)
        with pytest.raises(BrokenProcessPool) as raised:
            pool.submit(len, proxy).result()
    cause = str(raised.value.__cause__)
    assert 'ProxyResolveError.__init__() missing' in cause


def test_a_store_on_a_multi_connector_is_not_rebuilt() -> None:
    # ProxyStore's StoreConfig calls the class, not its from_config(). If this
    # fails, it does, and docs/pages/beyond.md has to say so.
    connector = MultiConnector({'all': (LocalConnector(), Policy())})
    with Store('multi', connector) as store:
        message = r'MultiConnector.__init__\(\) got an unexpected keyword'
        with pytest.raises(TypeError, match=message):
            Store.from_config(store.config())


def test_cloudpickle_opens_a_proxy() -> None:
    # So Dask may do, where it sends one.
    with Store('local', LocalConnector(), register=True) as store:
        proxy = store.proxy(b'spam', populate_target=False)
        cloudpickle.dumps(proxy)
        assert is_resolved(proxy)
