"""The real ProxyStore on our connector."""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip(
    'proxystore',
    reason='proxystore cannot be installed on this Python',
)

from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.multi import Policy
from proxystore.proxy import Proxy
from proxystore.proxy import ProxyResolveError
from proxystore.store import get_store
from proxystore.store import Store
from proxystore.store.config import StoreConfig
from proxystore.store.exceptions import ProxyResolveMissingKeyError
from proxystore.store.lifetimes import ContextLifetime
from proxystore.store.ref import borrow
from proxystore.store.ref import OwnedProxy
from proxystore.store.utils import get_key
from proxystore.store.utils import resolve_async

from proxystore_local import LocalConnector
from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.locks import ReportingLock

names = map('store-{}'.format, itertools.count())


def make_store(connector: Any, **options: Any) -> Store[Any]:
    # Without a cache every read comes from the connector.
    options = {'cache_size': 0, 'populate_target': False, **options}
    return Store(next(names), connector, register=True, **options)


@pytest.fixture(params=LOCKS)
def connector(request: pytest.FixtureRequest) -> LocalConnector:
    return LocalConnector(lock=LOCKS[request.param]())


@pytest.fixture
def store(connector: LocalConnector) -> Iterator[Store[Any]]:
    with make_store(connector) as store:
        yield store


def test_put_and_get(store: Store[Any]) -> None:
    key = store.put({'a': [1, 2]})
    assert store.exists(key)
    assert store.get(key) == {'a': [1, 2]}
    store.evict(key)
    assert not store.exists(key)
    assert store.get(key) is None
    assert store.get(key, default='missing') == 'missing'


def test_batches(store: Store[Any]) -> None:
    keys = store.put_batch(['a', 1, None])
    assert [store.get(key) for key in keys] == ['a', 1, None]
    assert all(store.connector.get_batch(keys))
    assert len(store.connector) == 3


def test_any_bytes_like_serializer(store: Store[Any]) -> None:
    for kind in (bytes, bytearray, memoryview):
        key: Any = store.put(b'value', serializer=kind)
        assert store.get(key, deserializer=bytes) == b'value'


def test_proxy(store: Store[Any]) -> None:
    proxy: Proxy[list[int]] = store.proxy([1, 2, 3])
    assert isinstance(proxy, Proxy)
    assert sum(proxy) == 6
    sent: Proxy[list[int]] = pickle.loads(pickle.dumps(store.proxy([4])))
    assert sent == [4]
    assert len(store.connector) == 2


def test_evicting_proxy(store: Store[Any]) -> None:
    proxy: Proxy[str] = store.proxy('once', evict=True)
    key = get_key(proxy)
    assert store.exists(key)
    assert proxy == 'once'
    assert not store.exists(key)


def test_proxy_batch(store: Store[Any]) -> None:
    proxies: list[Any] = store.proxy_batch(['a', 'b', 'c'])
    assert [str(proxy) for proxy in proxies] == ['a', 'b', 'c']


def test_locked_proxy(store: Store[Any]) -> None:
    locked = store.locked_proxy('value')
    assert locked.unlock() == 'value'


def test_proxy_of_an_evicted_key(store: Store[Any]) -> None:
    proxy: Proxy[str] = store.proxy('value')
    store.evict(get_key(proxy))
    with pytest.raises(ProxyResolveError) as caught:
        str(proxy)
    assert isinstance(caught.value.__cause__, ProxyResolveMissingKeyError)


def test_resolve_async(store: Store[Any]) -> None:
    proxy: Proxy[str] = store.proxy('value')
    resolve_async(proxy)
    assert proxy == 'value'


@pytest.mark.timeout(60)
def test_future(store: Store[Any]) -> None:
    future: Any = store.future(polling_interval=0.001)
    proxy = future.proxy()
    reader_runs = threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def read() -> str:
            reader_runs.set()
            return str(proxy)

        result = pool.submit(read)
        assert reader_runs.wait(PATIENCE)
        assert not future.done()
        future.set_result('value')
        assert result.result(PATIENCE) == 'value'
    assert future.done()
    assert future.result() == 'value'


def test_owned_proxy(store: Store[Any]) -> None:
    owned: OwnedProxy[list[int]] = store.owned_proxy([1, 2])
    assert len(store.connector) == 1
    borrowed = borrow(owned)
    assert borrowed == [1, 2]
    del borrowed
    del owned
    assert len(store.connector) == 0


def test_lifetime(store: Store[Any]) -> None:
    with ContextLifetime(store) as lifetime:
        store.put('a', lifetime=lifetime)
        store.put_batch(['b', 'c'], lifetime=lifetime)
        proxy: Proxy[str] = store.proxy('d', lifetime=lifetime)
        assert proxy == 'd'
        assert len(store.connector) == 4
    assert len(store.connector) == 0


def test_multi_connector(connector: LocalConnector) -> None:
    large = LocalConnector(include_data_in_config=True)
    multi = MultiConnector(
        {
            'small': (connector, Policy(max_size_bytes=1000)),
            'large': (large, Policy(min_size_bytes=1001)),
        },
    )
    with make_store(multi) as store:
        keys: list[Any] = store.put_batch(['small', 'large' * 1000])
        assert len(connector) == len(large) == 1
        assert [store.get(key) for key in keys] == ['small', 'large' * 1000]
        assert all(multi.get_batch(keys))
        proxy: Proxy[str] = store.proxy('x' * 5000)
        assert len(proxy) == 5000
        rebuilt = MultiConnector.from_config(multi.config())
        assert rebuilt.get(keys[1]) == multi.get(keys[1])
        store.evict(keys[0])
        assert len(connector) == 0


def test_store_config_round_trip() -> None:
    connector = LocalConnector(include_data_in_config=True)
    with make_store(connector) as store:
        key = store.put('value')
        config = store.config()
    assert config.connector.kind == 'proxystore_local.connector.LocalConnector'
    sent = pickle.loads(pickle.dumps(config))
    with Store.from_config(sent) as rebuilt:
        assert type(rebuilt.connector) is LocalConnector
        assert rebuilt.connector is not connector
        assert rebuilt.get(key) == 'value'
        assert get_store(rebuilt.name) is rebuilt


def test_store_config_through_toml(tmp_path: Any) -> None:
    config = StoreConfig.model_validate(
        {
            'name': next(names),
            'connector': {'kind': 'proxystore_local.LocalConnector'},
        },
    )
    config.write_toml(tmp_path / 'store.toml')
    read = StoreConfig.from_toml(tmp_path / 'store.toml')
    with Store.from_config(read) as store:
        assert type(store.connector) is LocalConnector
        assert store.get(store.put('value')) == 'value'


def share_objects(
    connector: LocalConnector,
    stores: Callable[[int], Store[Any]],
) -> None:
    """Threads resolve the proxies that their neighbours made, and evict."""
    threads, count = 4, 50
    barrier = threading.Barrier(threads)
    shared: dict[int, list[Any]] = {}

    def work(me: int) -> int:
        store = stores(me)
        shared[me] = store.put_batch([f'{me}-{i}' for i in range(count)])
        barrier.wait(PATIENCE)
        neighbour = (me + 1) % threads
        keys = shared[neighbour]
        proxies: list[Any] = [store.proxy_from_key(key) for key in keys]
        for i, proxy in enumerate(proxies):
            assert proxy == f'{neighbour}-{i}'
            own: Proxy[int] = store.proxy(i, evict=True)
            assert own + 0 == i
        barrier.wait(PATIENCE)
        for key in keys:
            store.evict(key)
        return len(proxies)

    with ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(work, range(threads), timeout=PATIENCE))
    assert done == [count] * threads
    assert len(connector) == 0


def test_a_shared_store_deserializes_one_object_at_a_time() -> None:
    """Not a wish of ours: it is why threads should have a Store each."""
    blocked = threading.Semaphore(0)
    inside: list[int] = []

    def deserialize(data: Any) -> Any:
        inside.append(threading.get_ident())
        if len(inside) == 1:
            other = pool.submit(get, store)
            # The other waits for the Store's lock, and is not in here.
            assert blocked.acquire(timeout=PATIENCE)
            assert inside == [threading.get_ident()]
            others.append(other)
        return data

    def get(store: Store[Any]) -> Any:
        return store.get(key, deserializer=deserialize)

    others: list[Any] = []
    connector = LocalConnector()
    key = connector.put(b'value')
    with ThreadPoolExecutor(1) as pool, make_store(connector) as store:
        store._lock = ReportingLock(  # type: ignore[assignment]
            threading.RLock(),
            blocked.release,
        )
        assert get(store) == b'value'
        assert others.pop().result(PATIENCE) == b'value'
    assert len(set(inside)) == 2


def test_two_stores_deserialize_at_once() -> None:
    both_inside = threading.Barrier(2)

    def deserialize(data: Any) -> Any:
        both_inside.wait(PATIENCE)
        return data

    def get(store: Store[Any]) -> Any:
        return store.get(key, deserializer=deserialize)

    connector = LocalConnector()
    key = connector.put(b'value')
    with ThreadPoolExecutor(2) as pool:
        stores = [make_store(connector), make_store(connector)]
        assert list(pool.map(get, stores)) == [b'value'] * 2
        for store in stores:
            store.close()


@pytest.mark.usefixtures('tiny_switch_interval')
def test_threads_with_one_shared_store(
    connector: LocalConnector,
    store: Store[Any],
) -> None:
    share_objects(connector, lambda _: store)


@pytest.mark.usefixtures('tiny_switch_interval')
def test_threads_with_a_store_each(connector: LocalConnector) -> None:
    stores = [make_store(connector) for _ in range(4)]
    share_objects(connector, stores.__getitem__)
    for store in stores:
        store.close()
