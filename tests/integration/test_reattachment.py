"""A configuration finds its data: what ProxyStore makes of that.

ProxyStore makes a Store anew, of its configuration, wherever one is used that
is not registered. Each scene makes something with a Store, and uses it when
that Store is not registered, is closed, or is gone. It must fail with a
connector whose configuration does not say where the data is.
"""

from __future__ import annotations

import copy
import gc
import itertools
import operator
import pickle
import queue
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    'proxystore',
    reason='proxystore cannot be installed on this Python',
)

from proxystore.connectors.file import FileConnector
from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.multi import Policy
from proxystore.proxy import Proxy
from proxystore.proxy import ProxyResolveError
from proxystore.store import get_or_create_store
from proxystore.store import get_store
from proxystore.store import Store
from proxystore.store import unregister_store
from proxystore.store.config import StoreConfig
from proxystore.store.exceptions import StoreExistsError
from proxystore.store.executor import ProxyAlways
from proxystore.store.executor import StoreExecutor
from proxystore.store.lifetimes import ContextLifetime
from proxystore.store.lifetimes import LeaseLifetime
from proxystore.store.ref import borrow
from proxystore.store.ref import clone
from proxystore.store.ref import into_owned
from proxystore.store.ref import mut_borrow
from proxystore.store.ref import update

from proxystore_local import LocalConnector
from tests.support.locks import PATIENCE
from tests.support.processes import run_apart

with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # "Streaming is an experimental feature"
    from proxystore.stream import StreamConsumer
    from proxystore.stream import StreamProducer
    from proxystore.stream.shims.queue import QueuePublisher
    from proxystore.stream.shims.queue import QueueSubscriber

# A check of what a scene has made, given the connector that it was made on.
Check = Callable[[LocalConnector], None]

names = map('unregistered-{}'.format, itertools.count())


def sent(it: Any) -> Any:
    """Send something to another thread, as ProxyStore's users do it."""
    return pickle.loads(pickle.dumps(it))


# Scenes. A check must not refer to the Store, which may be gone by then.


def proxy(store: Store[Any]) -> Check:
    made: Proxy[str] = store.proxy('value', populate_target=False)

    def check(connector: LocalConnector) -> None:
        assert made == 'value'

    return check


def populated_proxy(store: Store[Any]) -> Check:
    made = pickle.dumps(store.proxy('value', populate_target=True))

    def check(connector: LocalConnector) -> None:
        assert pickle.loads(made) == 'value'

    return check


def copied_proxy(store: Store[Any]) -> Check:
    made = copy.deepcopy(store.proxy('value', populate_target=False))

    def check(connector: LocalConnector) -> None:
        assert copy.deepcopy(made) == 'value'

    return check


def evicting_proxy(store: Store[Any]) -> Check:
    made: Any = store.proxy(5, evict=True, populate_target=False)

    def check(connector: LocalConnector) -> None:
        assert len(connector) == 1
        assert made + 0 == 5
        assert len(connector) == 0

    return check


def proxy_batch(store: Store[Any]) -> Check:
    made: list[Any] = store.proxy_batch(['a', 'b'], populate_target=False)

    def check(connector: LocalConnector) -> None:
        assert [str(each) for each in sent(made)] == ['a', 'b']

    return check


def proxy_from_key(store: Store[Any]) -> Check:
    made: Proxy[str] = store.proxy_from_key(store.put('value'))

    def check(connector: LocalConnector) -> None:
        assert made == 'value'

    return check


def locked_proxy(store: Store[Any]) -> Check:
    made = store.locked_proxy('value', populate_target=False)

    def check(connector: LocalConnector) -> None:
        assert made.unlock() == 'value'

    return check


def future(store: Store[Any]) -> Check:
    made: Any = store.future(polling_interval=0.001, polling_timeout=PATIENCE)
    waiting = made.proxy()

    def check(connector: LocalConnector) -> None:
        assert not made.done()
        sent(made).set_result('value')
        assert len(connector) == 1
        assert made.done()
        assert made.result() == waiting == 'value'

    return check


def owned_proxy(store: Store[Any]) -> Check:
    made = [store.owned_proxy(number) for number in range(100)]

    def check(connector: LocalConnector) -> None:
        assert len(connector) == 100
        made.clear()
        assert len(connector) == 0

    return check


def owned_proxies_in_cycles(store: Store[Any]) -> Check:
    for number in range(100):
        cycle: list[Any] = [store.owned_proxy(number)]
        cycle.append(cycle)

    def check(connector: LocalConnector) -> None:
        gc.collect()
        assert len(connector) == 0

    return check


def borrowing(store: Store[Any]) -> Check:
    made: list[Any] = [store.owned_proxy([1], populate_target=False)]

    def check(connector: LocalConnector) -> None:
        borrowed = borrow(made[0])
        assert borrowed == [1]
        del borrowed
        changed = mut_borrow(made[0])
        changed.append(2)
        update(changed)
        del changed
        made.append(clone(made[0]))
        assert len(connector) == 2
        assert sent(made.pop()) == [1, 2]
        made.clear()
        # The sent clone owned its object, and is gone as well.
        assert len(connector) == 0

    return check


def proxy_into_owned(store: Store[Any]) -> Check:
    made: list[Any] = [store.proxy('value', populate_target=False)]

    def check(connector: LocalConnector) -> None:
        made[0] = into_owned(made[0])
        assert made[0] == 'value'
        made.clear()
        assert len(connector) == 0

    return check


def lifetimes(store: Store[Any]) -> Check:
    made: list[Any] = store.proxy_batch(['a', 'b'], populate_target=False)

    def check(connector: LocalConnector) -> None:
        rebuilt = get_store(made[0])
        assert rebuilt is not None
        # Closed in any case: its timer would keep the process alive.
        with (
            ContextLifetime(rebuilt) as context,
            closing(LeaseLifetime(rebuilt, expiry=3600)) as lease,
        ):
            context.add_proxy(made[0])
            lease.add_proxy(made[1])
            assert made == ['a', 'b']
            assert len(connector) == 2
            lease.close()
            assert len(connector) == 1
        assert len(connector) == 0

    return check


def stream(store: Store[Any]) -> Check:
    topics: dict[str, Any] = {'topic': queue.Queue()}
    producer = StreamProducer[str](QueuePublisher(topics), default_store=store)
    producer.send('topic', 'value', evict=True)
    producer.flush()
    producer.close_topics('topic')

    def check(connector: LocalConnector) -> None:
        subscriber = QueueSubscriber(topics['topic'])
        assert len(connector) == 1
        assert [*map(str, StreamConsumer[str](subscriber))] == ['value']
        assert len(connector) == 0

    return check


def config_through_json(store: Store[Any]) -> Check:
    key, made = store.put('value'), store.config().model_dump_json()

    def check(connector: LocalConnector) -> None:
        config = StoreConfig.model_validate_json(made)
        assert get_or_create_store(config).get(key) == 'value'

    return check


def executor(store: Store[Any]) -> Check:
    made = StoreExecutor(ThreadPoolExecutor(1), store, ProxyAlways())

    def check(connector: LocalConnector) -> None:
        with made:
            result = made.submit(operator.add, 'val', 'ue').result(PATIENCE)
            assert result == 'value'
            assert len(connector) == 1
            del result
        assert len(connector) == 0

    return check


def proxies_for_many_threads(store: Store[Any]) -> Check:
    made: list[Any] = store.proxy_batch([*range(8)], populate_target=False)
    texts = [pickle.dumps(each) for each in made]

    def check(connector: LocalConnector) -> None:
        barrier = threading.Barrier(len(texts))

        def work(text: bytes) -> Any:
            barrier.wait(PATIENCE)
            return 0 + pickle.loads(text)

        with ThreadPoolExecutor(len(texts)) as pool:
            assert [*pool.map(work, texts)] == [*range(8)]
        assert len(connector) == 8

    return check


SCENES = [
    proxy,
    populated_proxy,
    copied_proxy,
    evicting_proxy,
    proxy_batch,
    proxy_from_key,
    locked_proxy,
    future,
    owned_proxy,
    owned_proxies_in_cycles,
    borrowing,
    proxy_into_owned,
    lifetimes,
    stream,
    config_through_json,
    executor,
    proxies_for_many_threads,
]

STATES = ['registered', 'unregistered', 'closed', 'gone']

every_scene = pytest.mark.parametrize('scene', SCENES)


def play(scene: Callable[[Store[Any]], Check], state: str) -> None:
    """Play a scene whose check finds its Store in a state."""
    connector, name = LocalConnector(), next(names)
    store: Store[Any] = Store(
        name,
        connector,
        register=state in ('registered', 'closed'),
        cache_size=0,
    )
    try:
        check = scene(store)
        if state in ('closed', 'gone'):
            store.close()
        if state == 'gone':
            del store
        check(connector)
    finally:
        unregister_store(name)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no configuration say where the data is."""
    monkeypatch.setattr(
        LocalConnector,
        'config',
        lambda _: {'include_data_in_config': False},
    )


@every_scene
@pytest.mark.parametrize('state', STATES)
def test_scene(scene: Callable[[Store[Any]], Check], state: str) -> None:
    play(scene, state)


@every_scene
@pytest.mark.parametrize('state', STATES[1:])
@pytest.mark.usefixtures('forgetful')
def test_scene_fails_with_an_empty_store(
    scene: Callable[[Store[Any]], Check],
    state: str,
) -> None:
    with pytest.raises((AssertionError, ProxyResolveError)):
        play(scene, state)


def exchange() -> list[str]:
    """Each thread has a Store of its own, and uses what another one made."""
    connector, count = LocalConnector(), 4
    barrier = threading.Barrier(count)
    made: dict[int, Any] = {}

    def work(me: int) -> str:
        store: Store[Any] = Store(next(names), connector, cache_size=0)
        proxy = store.proxy(f'from {me}', evict=True, populate_target=False)
        future: Any = store.future(polling_timeout=PATIENCE)
        owned = store.owned_proxy(f'owned by {me}')
        made[me] = pickle.dumps((proxy, future))
        barrier.wait(PATIENCE)
        proxy, other = pickle.loads(made[(me + 1) % count])
        other.set_result(f'for {me}')
        barrier.wait(PATIENCE)
        assert future.result() == f'for {(me - 1) % count}'
        store.evict(future._factory.key)
        del owned
        unregister_store(store)
        return str(proxy)

    with ThreadPoolExecutor(count) as pool:
        results = [*pool.map(work, range(count), timeout=PATIENCE)]
    assert len(connector) == 0
    return results


def test_a_store_a_thread() -> None:
    assert exchange() == ['from 1', 'from 2', 'from 3', 'from 0']


@pytest.mark.usefixtures('forgetful')
def test_a_store_a_thread_fails_with_an_empty_store() -> None:
    with pytest.raises((AssertionError, ProxyResolveError)):
        exchange()


def test_config_through_toml(tmp_path: Path) -> None:
    connector, name = LocalConnector(), next(names)
    store: Store[Any] = Store(name, connector)
    key = store.put('value')
    store.config().write_toml(tmp_path / 'store.toml')
    config = StoreConfig.from_toml(tmp_path / 'store.toml')
    assert config == store.config()
    rebuilt = Store.from_config(config)
    assert rebuilt.get(key) == 'value'
    assert rebuilt.config() == config


def test_a_multi_connector_finds_all_its_data() -> None:
    parts = LocalConnector(), LocalConnector()
    multi = MultiConnector(
        {
            'small': (parts[0], Policy(max_size_bytes=10)),
            'large': (parts[1], Policy(min_size_bytes=11)),
        },
    )
    keys = multi.put_batch([b'small', b'large' * 10])
    rebuilt = MultiConnector.from_config(multi.config())
    assert rebuilt.get_batch(keys) == [b'small', b'large' * 10]
    assert rebuilt.config() == multi.config()


def test_a_multi_connector_elsewhere_reaches_its_others(
    tmp_path: Path,
) -> None:
    multi = MultiConnector(
        {
            'small': (LocalConnector(), Policy(max_size_bytes=10)),
            'large': (FileConnector(str(tmp_path)), Policy()),
        },
    )
    keys = multi.put_batch([b'small', b'large' * 10])
    program = """if True:
        import pickle, sys, warnings
        from proxystore.connectors.multi import MultiConnector

        config, keys = pickle.loads(bytes.fromhex(sys.argv[1]))
        with warnings.catch_warnings(record=True, action='always') as caught:
            print(MultiConnector.from_config(config).get_batch(keys))
        for warning in caught:
            print(warning.category.__name__, str(warning.message)[:20])
    """
    text = pickle.dumps((multi.config(), keys)).hex()
    assert run_apart('-c', program, text) == (
        0,
        f'{[None, b"large" * 10]}\nRuntimeWarning the data of store_id\n',
    )
    multi.close()


def test_static_lifetime() -> None:
    """It ends with the process, so this is one of its own."""
    program = """if True:
        import atexit
        from proxystore.store import Store
        from proxystore.store.lifetimes import StaticLifetime
        from proxystore_local import LocalConnector

        connector = LocalConnector()
        atexit.register(lambda: print(len(connector), 'at exit'))
        store = Store('static', connector)
        proxy = store.proxy('value', populate_target=False)
        del store
        StaticLifetime().add_proxy(proxy)
        print(proxy, len(connector))
    """
    assert run_apart('-X', 'dev', '-W', 'error', '-c', program) == (
        0,
        'value 1\n0 at exit\n',
    )


# What remains ProxyStore's: the Store that it makes is registered, under the
# name of the one that it replaces.


def test_the_rebuilt_store_takes_the_name() -> None:
    connector, name = LocalConnector(), next(names)
    store: Store[Any] = Store(name, connector)
    assert store.proxy('value', populate_target=False) == 'value'
    with pytest.raises(StoreExistsError):
        Store(name, connector, register=True)
    unregister_store(name)
    Store(name, connector, register=True).close()


def test_the_rebuilt_store_keeps_the_data_alive() -> None:
    connector, name = LocalConnector(), next(names)
    store: Store[Any] = Store(name, connector)
    config = connector.config()
    assert store.proxy('value', populate_target=False) == 'value'
    del connector, store
    assert len(LocalConnector.from_config(config)) == 1
    unregister_store(name)
    with pytest.warns(RuntimeWarning):
        assert len(LocalConnector.from_config(config)) == 0


def test_a_registered_store_prevents_both() -> None:
    connector, name = LocalConnector(), next(names)
    config = connector.config()
    with Store(name, connector, register=True) as store:
        assert store.proxy('value', populate_target=False) == 'value'
        assert get_store(name) is store
    del connector, store
    with pytest.warns(RuntimeWarning):
        assert len(LocalConnector.from_config(config)) == 0
