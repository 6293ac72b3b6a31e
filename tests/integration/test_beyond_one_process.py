"""Tests of the example that goes beyond one process, and of its page.

The connectors, workers and Redis servers are real. Where there is no
redis-server, or a package is not installed, the tests are reported as skipped.
"""

from __future__ import annotations

import email
import itertools
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('proxystore')
pytest.importorskip('redis')
pytest.importorskip('distributed')

import cloudpickle
import redis
from proxystore.connectors.redis import RedisConnector
from proxystore.connectors.redis import RedisKey
from proxystore.proxy import is_resolved
from proxystore.proxy import Proxy
from proxystore.proxy import ProxyResolveError
from proxystore.store import get_or_create_store
from proxystore.store import Store
from proxystore.store.config import StoreConfig
from proxystore.store.utils import get_key

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import PATIENCE
from tests.support.processes import load
from tests.support.processes import ROOT
from tests.support.processes import run_apart

HOST = '127.0.0.1'
SCRIPT = ROOT / 'docs' / 'examples' / 'beyond_one_process.py'
FOLDER = email.__path__[0]


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[int]:
    """Run a Redis server that ends by SIGKILL; gives its port."""
    program = shutil.which('redis-server')
    if program is None:
        pytest.skip('no redis-server is installed')
    with socket.create_server((HOST, 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [
            *(program, '--bind', HOST, '--port', str(port)),
            *('--dir', str(folder), '--save', '', *options),
        ],
        stdout=subprocess.PIPE,
        encoding='utf-8',
    ) as server:
        try:
            assert server.stdout is not None
            lines = itertools.takewhile(
                lambda line: 'Ready to accept connections' not in line,
                server.stdout,
            )
            log = ''.join(lines)
            assert server.poll() is None, f'redis-server ended: {log}'
            yield port
        finally:
            server.kill()


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serve(tmp_path_factory.mktemp('redis')) as port:
        yield port


@pytest.fixture
def port(server: int) -> Iterator[int]:
    """The port of a server that has to be empty again after the test."""
    yield server
    with redis.Redis(HOST, server) as client:
        assert client.dbsize() == 0


@pytest.fixture
def example() -> Any:
    return load(SCRIPT)


# The program.


@pytest.mark.parametrize(
    ('workers', 'connector'),
    [
        ('threads', 'local'),
        ('threads', 'redis'),
        ('threads', 'multi'),
        ('processes', 'redis'),
        ('dask', 'redis'),
    ],
)
def test_one_program(port: int, workers: str, connector: str) -> None:
    # Dask may warn as it likes.
    flags = [] if workers == 'dask' else ['-X', 'dev', '-W', 'error']
    code, printed = run_apart(
        *(*flags, str(SCRIPT), FOLDER, '--redis-port', str(port)),
        *('--workers', workers, '--connector', connector),
    )
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith('OK: ')


@pytest.mark.parametrize('workers', ['processes', 'dask'])
def test_ctrl_c(port: int, workers: str) -> None:
    # When a worker, in another process, has done its first file. A terminal
    # sends it to the whole group of processes.
    program = """if True:
        import contextlib
        import os
        import signal
        import sys

        sys.path.insert(0, 'docs/examples')
        import beyond_one_process as example

        as_completed = example.as_completed
        make_workers = example.make_workers

        def interrupted(jobs):
            yield next(as_completed(jobs))
            os.killpg(0, signal.SIGINT)
            yield from as_completed(jobs)

        @contextlib.contextmanager
        def apart(kind):
            with make_workers(kind) as workers:
                assert workers.submit(os.getpid).result() != os.getpid()
                yield workers

        os.setpgid(0, 0)
        example.as_completed = interrupted
        example.make_workers = apart
        example.main()
    """
    code, printed = run_apart(
        *('-c', program, FOLDER, '--redis-port', str(port)),
        *('--workers', workers, '--connector', 'redis'),
    )
    assert code == -signal.SIGINT, printed
    assert printed.count('Traceback') == 1
    assert printed.endswith('\nKeyboardInterrupt\n')


def test_latency(
    example: Any,
    port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = example.measure
    example.measure = lambda user, size, _: measure(user, size, 2)
    example.main(['--latency', '--redis-port', str(port)])
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[2:] == ['local', 'multi', 'redis', 'redis/local']
    assert len(rows) == 8


# Its check can fail, and it leaves nothing behind.

put: Any = LocalConnector.put


@pytest.mark.parametrize(
    ('operation', 'faulty', 'message'),
    [
        (
            'put',
            lambda self, obj: put(self, obj.replace(b'email', b'spam!')),
            'is not restored',
        ),
        ('evict', lambda self, key: None, ' objects were left'),
        ('put', LocalConnector.new_key, 'the store has no object with'),
    ],
)
def test_faulty_connector(
    example: Any,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    faulty: Any,
    message: str,
) -> None:
    monkeypatch.setattr(LocalConnector, operation, faulty)
    with pytest.raises((SystemExit, LookupError), match=message):
        example.main([FOLDER])


def test_nothing_is_left_when_a_worker_fails(example: Any) -> None:
    # The other worker is in the middle of its file when the driver evicts
    # what it has put, and goes on.
    evicting = threading.Event()
    numbers = itertools.count()

    class Noticing(LocalConnector):
        def evict(self, key: LocalKey | tuple[Any, ...]) -> None:
            evicting.set()
            super().evict(key)

    def compress(config: StoreConfig, source: Any, _: Any) -> Any:
        if next(numbers) == 0:
            raise ZeroDivisionError
        assert evicting.wait(PATIENCE)
        return get_or_create_store(config).put('late')

    example.compress = compress
    files = {Path(name): b'content' for name in 'abcd'}
    connector = Noticing()
    with (
        ThreadPoolExecutor(2) as workers,
        pytest.raises(ZeroDivisionError),
    ):
        example.compress_files(files, connector, workers)
    assert next(numbers) == len(files)
    assert len(connector) == 0


# What a newcomer gets wrong.


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('--workers dask', 'or --workers threads\n'),
        ('--workers processes --connector multi', 'or --workers threads\n'),
        ('--redis-port x', "invalid int value: 'x'\n"),
    ],
)
def test_bad_options(
    example: Any,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    with pytest.raises(SystemExit, match='2'):
        example.main(arguments.split())
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize('option', ['--connector=redis', '--latency'])
def test_no_server(example: Any, option: str) -> None:
    # Bound, so that nobody else gets the port, but not listening.
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        port = str(silent.getsockname()[1])
        message = f"no Redis .* start one with 'redis-server --port {port}'"
        with pytest.raises(SystemExit, match=message):
            example.main([option, '--redis-port', port])


def test_no_files(example: Any) -> None:
    with pytest.raises(SystemExit, match=r'no \*\.py files in missing'):
        example.main(['missing'])


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'distributed', None)
    message = (
        r"no module named 'distributed': run .*pip install '\.\[beyond\]'"
    )
    with pytest.raises(SystemExit, match=message):
        load(SCRIPT)


# What reaches another process, and survives the end of one. The program of
# the page has the proxy of a local connector there.


def open_there(proxy: Proxy[bytes]) -> str:
    """Try to open a proxy; gives the cause of the error."""
    with pytest.raises(ProxyResolveError) as raised:
        bytes(proxy)
    return repr(raised.value.__cause__)


def test_error_of_a_proxy_breaks_a_process_pool() -> None:
    # ProxyStore's error can be pickled, but not unpickled. If this fails, it
    # can be, and docs/pages/beyond.md has to say so.
    with (
        Store('local', LocalConnector(), register=True) as store,
        ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool,
    ):
        proxy = store.proxy(b'spam', populate_target=False)
        with pytest.raises(BrokenProcessPool) as raised:
            pool.submit(len, proxy).result()
    assert 'ProxyResolveError.__init__() missing' in str(
        raised.value.__cause__,
    )


def test_multi_connector_is_not_rebuilt_in_another_process(
    example: Any,
    port: int,
) -> None:
    # ProxyStore's StoreConfig calls the class, not its from_config(). If this
    # fails, it does, and docs/pages/beyond.md has to say so.
    connector = example.make_connector('multi', port)
    with (
        Store('multi', connector, register=True) as store,
        ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool,
    ):
        proxy = store.proxy(bytes(example.SMALL * 2), populate_target=False)
        cause = pool.submit(open_there, proxy).result()
        store.evict(get_key(proxy))
    assert 'MultiConnector.__init__() got an unexpected keyword' in cause


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--appendonly', 'no'], None),
        (['--appendonly', 'yes', '--appendfsync', 'always'], b'spam'),
    ],
)
def test_what_survives_in_redis(
    tmp_path: Path,
    options: list[str],
    expected: bytes | None,
) -> None:
    program = """if True:
        import sys
        from proxystore.connectors.redis import RedisConnector

        with RedisConnector('127.0.0.1', int(sys.argv[1])) as connector:
            print(connector.put(b'spam').redis_key, end='')
    """
    with serve(tmp_path, *options) as port:
        # A process puts it, and ends.
        code, key = run_apart('-c', program, str(port))
        assert code == 0, key
        with RedisConnector(HOST, port) as connector:
            assert connector.get(RedisKey(key)) == b'spam'
    # The server was killed.
    with serve(tmp_path, *options) as port:
        with RedisConnector(HOST, port) as connector:
            assert connector.get(RedisKey(key)) == expected


def test_cloudpickle_opens_a_proxy() -> None:
    # So Dask may do, where it sends one.
    with Store('local', LocalConnector(), register=True) as store:
        proxy = store.proxy(b'spam', populate_target=False)
        cloudpickle.dumps(proxy)
        assert is_resolved(proxy)
