"""The real ProxyStore on our connector, also when a Store is lost.

ProxyStore makes a Store anew, of its configuration, wherever one is used that
is not registered. So each check uses what was made with a Store when that
Store is registered, is not, is closed, or is gone. It must fail with a
connector whose configuration does not say where the data is.
"""

from __future__ import annotations

import gc
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip(
    'proxystore',
    reason='proxystore cannot be installed on this Python',
)

from proxystore.connectors.multi import MultiConnector
from proxystore.connectors.multi import Policy
from proxystore.proxy import ProxyResolveError
from proxystore.store import get_or_create_store
from proxystore.store import Store
from proxystore.store import unregister_store
from proxystore.store.config import StoreConfig
from proxystore.store.ref import clone
from proxystore.store.ref import into_owned
from proxystore.store.ref import mut_borrow
from proxystore.store.ref import update
from proxystore.utils.config import dumps
from proxystore.utils.config import loads

from proxystore_local import LocalConnector
from tests.support.locks import PATIENCE

# What is made with a Store, and a check of it: given that, and the connector.
Make = Callable[[Store[Any]], Any]
Check = Callable[[Any, LocalConnector], None]
CHECKS: dict[str, tuple[Make, Check]] = {}

names = map('store-{}'.format, itertools.count())


def made_by(make: Make) -> Callable[[Check], Check]:
    """Enter a check among CHECKS, and how to make what it is given."""

    def enter(check: Check) -> Check:
        CHECKS[check.__name__] = make, check
        return check

    return enter


def proxies(store: Store[Any], *values: Any, **options: Any) -> Any:
    """Make proxies that have to ask the connector."""
    return store.proxy_batch(values, populate_target=False, **options)


def sent(it: Any) -> Any:
    """Send something to another thread, as ProxyStore's users do it."""
    return pickle.loads(pickle.dumps(it))


@made_by(lambda store: (store.put('value'), dumps(store.config())))
def key_and_configuration(made: Any, connector: LocalConnector) -> None:
    key, toml = made
    config = loads(StoreConfig, toml)
    store: Store[Any] = get_or_create_store(config)
    assert store.config() == config
    assert store.exists(key)
    assert store.get(key) == 'value'
    store.evict(key)
    assert len(connector) == 0
    assert store.get(key, default='missing') == 'missing'


@made_by(lambda store: proxies(store, 'a', 'b', evict=True))
def proxies_that_are_sent(made: Any, connector: LocalConnector) -> None:
    assert len(connector) == 2
    assert [str(proxy) for proxy in sent(made)] == ['a', 'b']
    assert len(connector) == 0


@made_by(lambda store: store.future(polling_timeout=PATIENCE))
def future(made: Any, connector: LocalConnector) -> None:
    proxy = made.proxy()
    assert not made.done()
    sent(made).set_result('value')
    assert len(connector) == 1
    assert made.done()
    assert made.result() == proxy == 'value'


@made_by(lambda store: proxies(store, [1]))
def owned_and_borrowed_proxies(made: Any, connector: LocalConnector) -> None:
    made[0] = into_owned(made[0])
    changed = mut_borrow(made[0])
    changed.append(2)
    update(changed)
    del changed
    made.append(clone(made[0]))
    assert len(connector) == 2
    # What is sent owns its object as well, and evicts it.
    assert sent(made.pop()) == [1, 2]
    assert len(connector) == 1
    made.append(made)
    made = None
    gc.collect()
    assert len(connector) == 0


STATES = ['registered', 'unregistered', 'closed', 'gone']


def run(name: str, state: str) -> None:
    """Run a check when the Store is in a state."""
    make, check = CHECKS[name]
    connector, store_name = LocalConnector(), next(names)
    store: Store[Any] = Store(
        store_name,
        connector,
        register=state in ('registered', 'closed'),
        cache_size=0,
    )
    try:
        made = [make(store)]
        if state in ('closed', 'gone'):
            store.close()
        if state == 'gone':
            del store
        check(made.pop(), connector)
    finally:
        unregister_store(store_name)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no configuration say where the data is."""
    monkeypatch.setattr(
        LocalConnector,
        'config',
        lambda _: {'include_data_in_config': False},
    )


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('name', CHECKS)
def test_finds_the_data(name: str, state: str) -> None:
    run(name, state)


@pytest.mark.parametrize('state', STATES[1:])
@pytest.mark.parametrize('name', CHECKS)
@pytest.mark.usefixtures('forgetful')
def test_fails_with_an_empty_store(name: str, state: str) -> None:
    with pytest.raises((AssertionError, ProxyResolveError)):
        run(name, state)


@pytest.mark.parametrize('register', [False, True])
def test_a_store_made_anew_keeps_the_data_until_it_is_unregistered(
    register: bool,
) -> None:
    """Why Stores should be registered all the same."""
    connector, name = LocalConnector(), next(names)
    config = connector.config()
    with Store(name, connector, register=register) as store:
        assert proxies(store, 'value') == ['value']
    del connector, store
    if not register:
        assert len(LocalConnector.from_config(config)) == 1
        unregister_store(name)
    with pytest.warns(RuntimeWarning):
        assert len(LocalConnector.from_config(config)) == 0


def test_a_multi_connector_finds_all_its_data() -> None:
    small, large = LocalConnector(), LocalConnector()
    multi = MultiConnector(
        {
            'small': (small, Policy(max_size_bytes=10)),
            'large': (large, Policy(min_size_bytes=11)),
        },
    )
    objs = [b'small', b'large' * 10]
    keys = multi.put_batch(objs)
    assert len(small) == len(large) == 1
    rebuilt = MultiConnector.from_config(multi.config())
    assert rebuilt.get_batch(keys) == objs
    assert rebuilt.config() == multi.config()
