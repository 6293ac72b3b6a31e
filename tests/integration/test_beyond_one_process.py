"""Tests of the example that goes beyond one process, on a real Redis server.

The connectors and workers that it uses are real as well. Where there is no
redis-server, or a package is not installed, the tests are reported as skipped.
"""

from __future__ import annotations

import email
import itertools
import shutil
import socket
import subprocess
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
pytest.importorskip('tqdm')
pytest.importorskip('redis')
pytest.importorskip('distributed')

import cloudpickle
import redis
from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.redis import RedisConnector
from proxystore.proxy import is_resolved
from proxystore.proxy import Proxy
from proxystore.proxy import ProxyResolveError
from proxystore.store import get_or_create_store
from proxystore.store import get_store
from proxystore.store import Store
from proxystore.store.config import StoreConfig
from proxystore.store.utils import get_key

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.integration.test_word_count import EXAMPLES
from tests.integration.test_word_count import run
from tests.support.processes import load
from tests.support.processes import without

HOST = '127.0.0.1'
PACKAGE = Path(email.__path__[0])
SCRIPT = EXAMPLES / 'beyond_one_process.py'


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


@pytest.fixture(scope='module')
def other_process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
        yield pool


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
    done = run(
        *(SCRIPT, PACKAGE, '--redis-port', port),
        *('--workers', workers, '--connector', connector),
        # Dask may warn as it likes.
        strict=workers != 'dask',
    )
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.split() == ['files', str(len(list(PACKAGE.rglob('*.py'))))]
    assert last.startswith('OK: ')


@pytest.mark.parametrize('workers', ['processes', 'dask'])
def test_workers_are_in_other_processes(workers: str) -> None:
    code = f"""
import os
import beyond_one_process

if __name__ == '__main__':
    with beyond_one_process.make_workers({workers!r}) as workers:
        assert workers.submit(os.getpid).result() != os.getpid()
"""
    done = run('-c', code, strict=workers != 'dask', cwd=EXAMPLES)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('workers', ['processes', 'dask'])
def test_ctrl_c(port: int, workers: str) -> None:
    # When a worker has done its first file. A terminal sends it to the whole
    # group of processes.
    code = """
import os
import signal
import sys
import beyond_one_process as example

as_completed = example.as_completed

def interrupted(jobs):
    yield next(as_completed(jobs))
    os.killpg(0, signal.SIGINT)
    yield from as_completed(jobs)

if __name__ == '__main__':
    example.as_completed = interrupted
    sys.exit(example.main())
"""
    done = run(
        *('-c', code, PACKAGE, '--redis-port', port),
        *('--workers', workers, '--connector', 'redis'),
        strict=workers != 'dask',
        cwd=EXAMPLES,
        start_new_session=True,
    )
    assert done.returncode == 130
    assert done.stdout == ''
    assert done.stderr == 'beyond_one_process.py: interrupted\n'


@pytest.mark.parametrize('missing', ['redis', 'distributed'])
def test_threads_need_no_server(missing: str) -> None:
    done = run('-c', without(SCRIPT, missing), PACKAGE / 'mime')
    assert done.returncode == 0, done.stderr


def test_latency(
    example: Any,
    port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = example.measure
    example.measure = lambda user, size, count: measure(user, size, 2)
    assert example.main(['--latency', '--redis-port', str(port)]) is None
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[2:] == ['local', 'multi', 'redis', 'redis/local']
    assert len(rows) == 8
    for row in rows:
        numbers = row.replace(',', '').split()[4:]
        assert all(float(number) > 0 for number in numbers)


# Its check can fail, and it leaves nothing behind.


put_object: Any = LocalConnector.put


@pytest.mark.parametrize(
    ('operation', 'faulty', 'message'),
    [
        (
            'put',
            lambda self, obj: put_object(self, obj[:100] + obj[:99:-1]),
            'WRONG: ',
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
    try:
        wrong = example.main([str(PACKAGE)])
    except LookupError as error:
        wrong = str(error)
    assert message in wrong
    assert get_store('beyond-one-process') is None


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
        assert evicting.wait(30)
        return get_or_create_store(config).put('late')

    example.compress = compress
    files = {file: file.read_bytes() for file in PACKAGE.glob('*.py')}
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
        (['--workers', 'dask'], 'or --workers threads\n'),
        (
            ['--workers', 'processes', '--connector', 'multi'],
            'use --connector redis, or --workers threads\n',
        ),
        (['--redis-port', '0'], "not a number from 1 to 65535: '0'\n"),
        (['--redis-port', '65536'], "not a number from 1 to 65535: '65536'\n"),
        (['--redis-port', 'x'], "not a number from 1 to 65535: 'x'\n"),
    ],
)
def test_bad_arguments(
    example: Any,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    example.make_connector = example.make_workers = None
    with pytest.raises(SystemExit) as raised:
        example.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith(message)


@pytest.mark.parametrize('option', ['--connector=redis', '--latency'])
def test_no_server(example: Any, option: str) -> None:
    # Bound, so that nobody else gets the port, but not listening.
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        port = str(silent.getsockname()[1])
        wrong = example.main([str(PACKAGE), option, '--redis-port', port])
    assert wrong.count('\n') == 0
    assert f'no Redis server at {HOST}:{port} (' in wrong
    assert f"start one with 'redis-server --port {port}'" in wrong


@pytest.mark.parametrize(
    ('module', 'workers'),
    [('redis', 'threads'), ('distributed', 'dask')],
)
def test_missing_module(module: str, workers: str) -> None:
    options = ('--connector', 'redis', '--workers', workers)
    done = run('-c', without(SCRIPT, module), *options)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.count('\n') == 1
    assert f"no module named '{module}" in done.stderr
    assert "pip install '.[beyond]'" in done.stderr


# What reaches another process, and survives the end of one.


def try_to_open(proxy: Proxy[bytes]) -> list[str]:
    """Open a proxy; gives its length, or the exception and its cause."""
    try:
        return [str(len(proxy))]
    except ProxyResolveError as error:
        return [type(error).__name__, repr(error.__cause__)]


def make_store(name: str, config: dict[str, Any]) -> None:
    """Make and register a Store on a MultiConnector."""
    Store(name, MultiConnector.from_config(config), register=True)


def put(config: StoreConfig, size: int) -> Any:
    """Put an object and close the Store, as a process that ends."""
    with get_or_create_store(config) as store:
        return store.put(bytes(size))


@pytest.mark.parametrize('populate_target', [True, False])
def test_proxy_of_the_local_connector_in_another_process(
    other_process: ProcessPoolExecutor,
    populate_target: bool,
) -> None:
    with Store('local', LocalConnector(), register=True) as store:
        proxy = store.proxy(b'spam', populate_target=populate_target)
        error, cause = other_process.submit(try_to_open, proxy).result()
    assert error == 'ProxyResolveError'
    assert cause.startswith('ProxyResolveMissingKeyError(')


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
    other_process: ProcessPoolExecutor,
    port: int,
) -> None:
    # ProxyStore's StoreConfig calls the class, not its from_config(). If this
    # fails, it does, and docs/pages/beyond.md has to say so.
    connector = example.make_connector('multi', port)
    with Store('rebuilt', connector, register=True) as store:
        proxy = store.proxy(bytes(example.SMALL * 2), populate_target=False)
        error, cause = other_process.submit(try_to_open, proxy).result()
        store.evict(get_key(proxy))
    assert error == 'ProxyResolveError'
    assert 'MultiConnector.__init__() got an unexpected keyword' in cause


def test_multi_connector_made_in_another_process(
    example: Any,
    other_process: ProcessPoolExecutor,
    port: int,
) -> None:
    small, large = example.SMALL // 2, example.SMALL * 2
    connector = example.make_connector('multi', port)
    with Store('multi', connector, register=True) as store:
        other_process.submit(make_store, 'multi', connector.config()).result()
        proxy: Proxy[bytes] = store.proxy(bytes(large), evict=True)
        opened = other_process.submit(try_to_open, proxy).result()
        assert opened == [str(large)]
        proxy = store.proxy(bytes(small))
        error, cause = other_process.submit(try_to_open, proxy).result()
        assert error == 'ProxyResolveError'
        assert cause.startswith('ProxyResolveMissingKeyError(')


def test_redis_survives_a_process(port: int) -> None:
    with Store('redis', RedisConnector(HOST, port)) as store:
        with ProcessPoolExecutor(1, mp_context=get_context('spawn')) as pool:
            key = pool.submit(put, store.config(), 1000).result()
        assert store.get(key) == bytes(1000)
        store.evict(key)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        (['--appendonly', 'no'], None),
        (['--appendonly', 'yes', '--appendfsync', 'always'], b'spam'),
    ],
)
def test_redis_that_is_killed(
    tmp_path: Path,
    options: list[str],
    expected: bytes | None,
) -> None:
    with (
        serve(tmp_path, *options) as port,
        RedisConnector(HOST, port) as connector,
    ):
        key = connector.put(b'spam')
    with (
        serve(tmp_path, *options) as port,
        RedisConnector(HOST, port) as connector,
    ):
        assert connector.get(key) == expected


def test_cloudpickle_opens_a_proxy() -> None:
    # So Dask may do, where it sends one.
    with Store('local', LocalConnector(), register=True) as store:
        proxy = store.proxy(b'spam', populate_target=False)
        cloudpickle.dumps(proxy)
        assert is_resolved(proxy)
