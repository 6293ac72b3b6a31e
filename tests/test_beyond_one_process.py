"""Tests of the example that goes beyond one process, on a real Redis server.

The connectors and workers that it uses are real as well. Where there is no
redis-server, or a package is not installed, the tests are reported as skipped.
"""

from __future__ import annotations

import email
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Executor
from concurrent.futures import Future
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
from tests.harness import load
from tests.harness import without

HOST = '127.0.0.1'
PACKAGE = Path(email.__path__[0])
SCRIPT = Path(__file__).parents[1] / 'docs/examples/beyond_one_process.py'


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
            lines = []
            for line in server.stdout:
                lines.append(line)
                if 'Ready to accept connections' in line:
                    break
            else:
                pytest.fail(f'redis-server ended: {"".join(lines)}')
            yield port
        finally:
            server.kill()


@pytest.fixture(scope='module')
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp('redis')
    with serve(folder, '--appendonly', 'no') as port:
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


def run(
    *arguments: object,
    code: str = '',
    strict: bool = True,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the example as a user does, or code, with warnings as errors."""
    return subprocess.run(
        [
            sys.executable,
            *(('-X', 'dev', '-W', 'error') if strict else ()),
            *(('-c', code) if code else (str(SCRIPT),)),
            *map(str, arguments),
        ],
        capture_output=True,
        check=False,
        cwd=cwd,
        encoding='utf-8',
        timeout=100,
    )


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
        *(PACKAGE, '--workers', workers, '--connector', connector),
        *('--redis-port', port),
        # Dask may warn as it likes.
        strict=workers != 'dask',
    )
    assert done.returncode == 0, done.stderr
    files = len(list(PACKAGE.rglob('*.py')))
    first, *_, last = done.stdout.splitlines()
    assert first.split() == ['files', str(files)]
    assert last.startswith('OK: ')
    assert '100%' in done.stderr


def test_workers_of_dask_are_in_other_processes() -> None:
    code = """
import os
import beyond_one_process

if __name__ == '__main__':
    with beyond_one_process.make_workers('dask') as workers:
        print(workers.submit(os.getpid).result() != os.getpid())
"""
    done = run(code=code, strict=False, cwd=SCRIPT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 'True\n'


def test_multi_has_the_small_objects_here(example: Any, port: int) -> None:
    connector = example.make_connector('multi', port)
    local = connector.connectors['small'].connector
    small = connector.put(bytes(example.SMALL))
    large = connector.put(bytes(example.SMALL + 1))
    assert isinstance(local, LocalConnector)
    assert len(local) == 1
    with redis.Redis(HOST, port) as client:
        assert client.dbsize() == 1
    connector.evict(small)
    connector.evict(large)
    connector.close()


@pytest.mark.parametrize('missing', ['redis', 'distributed'])
def test_threads_need_no_server(missing: str) -> None:
    done = run(PACKAGE / 'mime', code=without(SCRIPT, missing))
    assert done.returncode == 0, done.stderr


def test_latency(
    example: Any,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measure = example.measure
    monkeypatch.setattr(
        example,
        'measure',
        lambda user, size, _: measure(user, size, 2),
    )
    assert example.main(['--latency', '--redis-port', str(port)]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[2:] == ['local', 'multi', 'redis', 'redis/local']
    assert [row.split()[:4] for row in rows] == [
        [layer, f'{operation},', *size.split()]
        for size in ('1 kB', '10 MB')
        for layer in ('connector', 'Store')
        for operation in ('put', 'get')
    ]
    for row in rows:
        assert all(float(n.replace(',', '')) >= 0 for n in row.split()[4:])


# Its check can fail, and it leaves nothing behind.


class Altering(LocalConnector):
    """Puts something else where there is enough of it."""

    def put(self, obj: Any) -> LocalKey:
        return super().put(bytes(obj[:100]) + bytes(obj[100:])[::-1])


class Keeping(LocalConnector):
    """Does not evict."""

    def evict(self, key: LocalKey) -> None:
        pass


class Losing(LocalConnector):
    """Loses what is put."""

    def put(self, obj: Any) -> LocalKey:
        return self.new_key(obj)


@pytest.mark.parametrize(
    ('connector', 'message'),
    [
        (Altering, 'is not restored from its compressed form'),
        (Keeping, ' objects were left'),
    ],
)
def test_check_fails(
    example: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    connector: type[LocalConnector],
    message: str,
) -> None:
    monkeypatch.setattr(example, 'LocalConnector', connector)
    assert example.main([str(PACKAGE)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('WRONG: ')
    assert message in last


@pytest.mark.parametrize('damage', [b'', b'?', b'x\x9c'])
def test_damaged_files_are_not_restored(example: Any, damage: bytes) -> None:
    assert example.restore(damage, b'') is None


def test_lost_object(example: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(example, 'LocalConnector', Losing)
    with pytest.raises(LookupError, match='the store has no object with'):
        example.main([str(PACKAGE)])
    assert get_store('beyond-one-process') is None


def test_nothing_is_left_when_a_worker_fails(example: Any, port: int) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    example.compress = fail
    files = sorted(PACKAGE.rglob('*.py'))
    with (
        ThreadPoolExecutor(2) as workers,
        pytest.raises(ZeroDivisionError),
    ):
        example.compress_files(files, RedisConnector(HOST, port), workers)


class Late(Future[Any]):
    """Cannot be cancelled, and puts an object only then."""

    connector: RedisConnector

    def cancel(self) -> bool:
        if not self.done():
            self.set_result(self.connector.put(b'late'))
        return False


class FailsFirst(Executor):
    """Fails at once with the first task, while it goes on with the others."""

    def __init__(self, connector: RedisConnector) -> None:
        self.connector = connector
        self.late: list[Late] = []

    def submit(self, *_: Any, **__: Any) -> Future[Any]:
        future = Late()
        future.connector = self.connector
        if self.late:
            future.set_running_or_notify_cancel()
        else:
            future.set_exception(ZeroDivisionError())
        self.late.append(future)
        return future


def test_nothing_is_left_of_workers_that_go_on(
    example: Any,
    port: int,
) -> None:
    files = sorted((PACKAGE / 'mime').glob('*.py'))
    connector = RedisConnector(HOST, port)
    workers = FailsFirst(connector)
    with pytest.raises(ZeroDivisionError):
        example.compress_files(files, connector, workers)
    assert len(workers.late) == len(files) > 1
    assert all(future.done() for future in workers.late)


def test_the_local_connector_does_not_reach_a_process(
    example: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the program refuses. The worker has to find the module.
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setitem(sys.modules, 'beyond_one_process', example)
    connector = LocalConnector()
    files = sorted((PACKAGE / 'mime').glob('*.py'))
    with (
        example.make_workers('processes') as workers,
        pytest.raises(LookupError, match='the store has no object with'),
    ):
        example.compress_files(files, connector, workers)
    assert len(connector) == 0


# What a newcomer gets wrong.


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        *(
            (
                ['--connector', connector, '--workers', workers],
                f'error: --connector {connector} keeps objects in the memory '
                f'of this process, where the workers of --workers {workers} '
                'cannot read them: use --connector redis, or --workers '
                'threads\n',
            )
            for connector in ('local', 'multi')
            for workers in ('processes', 'dask')
        ),
        (['missing'], 'error: not a folder: missing\n'),
        (['{empty}'], 'error: no *.py files in {empty}\n'),
        (['--redis-port', '0'], "not a number from 1 to 65535: '0'\n"),
        (['--redis-port', '65536'], "not a number from 1 to 65535: '65536'\n"),
        (['--redis-port', 'x'], "not a number from 1 to 65535: 'x'\n"),
    ],
)
def test_bad_arguments(
    example: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    for start in 'make_connector', 'make_workers':
        monkeypatch.setattr(example, start, None)
    with pytest.raises(SystemExit) as raised:
        example.main([each.format(empty=tmp_path) for each in arguments])
    assert raised.value.code == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.endswith(message.format(empty=tmp_path))
    assert err.count('\n') == 1 or 'usage: ' in err


@pytest.mark.parametrize('option', ['--connector=redis', '--latency'])
def test_no_server(
    example: Any,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    # Bound, so that nobody else gets the port, but not listening.
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        port = str(silent.getsockname()[1])
        with pytest.raises(SystemExit) as raised:
            example.main([str(PACKAGE), option, '--redis-port', port])
    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert err.count('\n') == 1
    assert f'error: no Redis server at {HOST}:{port} (' in err
    assert f"start one with 'redis-server --port {port}'" in err


@pytest.mark.parametrize(
    ('module', 'workers', 'extra'),
    [
        ('redis', 'threads', 'beyond'),
        ('distributed', 'dask', 'beyond'),
        ('tqdm', 'threads', 'examples'),
        ('proxystore', 'threads', 'examples'),
    ],
)
def test_missing_module(module: str, workers: str, extra: str) -> None:
    done = run(
        *('--connector', 'redis', '--workers', workers),
        code=without(SCRIPT, module),
    )
    assert done.returncode > 0
    assert done.stdout == ''
    assert done.stderr.count('\n') == 1
    assert done.stderr.startswith('beyond_one_process.py: error: no module ')
    assert f"named '{module}" in done.stderr
    assert f"pip install '.[{extra}]'" in done.stderr


# What each connector does at the end of a thread and of a process.


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
    assert 'there is no object associated with the key' in cause


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


def test_local_connector_is_not_sent(
    other_process: ProcessPoolExecutor,
) -> None:
    connector = LocalConnector()
    message = 'cannot pickle or copy a LocalConnector: .*RedisConnector'
    with pytest.raises(TypeError, match=message):
        pickle.dumps(connector)
    store = Store('local', connector)
    for sent in connector, store:
        with pytest.raises(TypeError, match=message):
            other_process.submit(repr, sent).result()


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
    assert cause.startswith('TypeError(')
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
        # What is put here: the large object arrives, the small one does not.
        proxy: Proxy[bytes] = store.proxy(bytes(large), evict=True)
        opened = other_process.submit(try_to_open, proxy).result()
        assert opened == [str(large)]
        proxy = store.proxy(bytes(small))
        error, cause = other_process.submit(try_to_open, proxy).result()
        assert error == 'ProxyResolveError'
        assert cause.startswith('ProxyResolveMissingKeyError(')
        # What is put there: likewise.
        config = store.config()
        key = other_process.submit(put, config, small).result()
        assert key.connector_name == 'small'
        assert store.get(key) is None
        other_process.submit(make_store, 'multi', connector.config()).result()
        key = other_process.submit(put, config, large).result()
        assert key.connector_name == 'large'
        assert store.get(key) == bytes(large)
        store.evict(key)


@pytest.mark.parametrize('kind', ['local', 'redis', 'multi'])
def test_objects_survive_a_thread(example: Any, port: int, kind: str) -> None:
    with example.make_connector(kind, port) as connector:
        with ThreadPoolExecutor(1) as thread:
            key = thread.submit(connector.put, b'spam').result()
        assert connector.get(key) == b'spam'
        connector.evict(key)


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
        pickle.dumps(proxy)
        assert not is_resolved(proxy)
        cloudpickle.dumps(proxy)
        assert is_resolved(proxy)
