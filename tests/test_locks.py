"""Which locks a connector takes, and that one dict has one lock."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from readerwriterlock import rwlock
from readerwriterlock import rwlock_async

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import locks
from tests.harness import instrumented_locks
from tests.harness import LOCKS
from tests.harness import PATIENCE


class Store(dict[LocalKey, bytes]):
    """A dict that can be weakly referenced."""


def lock_of(connector: LocalConnector) -> object:
    return connector._guarded.lock


@pytest.mark.parametrize('kind', LOCKS)
def test_every_lock_of_readerwriterlock_is_taken(kind: str) -> None:
    lock = LOCKS[kind]()
    connector = LocalConnector(lock=lock)
    assert lock_of(connector) is lock
    assert kind in repr(connector)


def test_no_lock_of_readerwriterlock_is_missing() -> None:
    offered = {
        name
        for name, kind in vars(rwlock).items()
        if name.startswith('RWLock') and hasattr(kind, 'c_time_source')
    }
    offered |= {
        name
        for name in vars(rwlock)
        if name.startswith('RWLock') and not name.startswith('RWLockable')
    }
    assert offered == set(LOCKS) - {'BigReaderLock'}


@pytest.mark.parametrize(
    'lock',
    [
        threading.Lock(),
        threading.RLock(),
        rwlock.RWLockFair,
        rwlock.RWLockFair().gen_wlock(),
        rwlock_async.RWLockFair(),
        'fair',
        0,
    ],
)
def test_anything_else_is_refused(lock: Any) -> None:
    store: dict[LocalKey, bytes] = {}
    names = r'instance of BigReaderLock, .*\(RWLockFair, .*, RWLockWriteD\)'
    with pytest.raises(TypeError, match=names) as caught:
        LocalConnector(store, lock=lock)
    assert repr(lock) in str(caught.value)
    # The refusal has not left a lock behind.
    LocalConnector(store, lock=rwlock.RWLockRead())


@pytest.mark.parametrize('store', [[], 'text', (), LocalConnector()])
def test_a_store_dict_must_be_a_dict(store: Any) -> None:
    with pytest.raises(TypeError, match=f'dict, not {type(store).__name__}'):
        LocalConnector(store)


def test_connectors_on_one_dict_share_one_lock() -> None:
    store: dict[LocalKey, bytes] = {}
    lock = rwlock.RWLockWrite()
    connectors = [LocalConnector(store, lock=lock), LocalConnector(store)]
    connectors.append(LocalConnector(store, lock=lock))
    connectors.append(
        LocalConnector.from_config(
            {'include_data_in_config': False, 'store_dict': store},
        ),
    )
    del connectors[0]
    connectors.append(LocalConnector(store))
    assert {lock_of(connector) for connector in connectors} == {lock}
    assert lock_of(LocalConnector({})) is not lock


def test_equal_dicts_have_their_own_locks() -> None:
    a, b = LocalConnector({}), LocalConnector({})
    assert lock_of(a) is not lock_of(b)


def test_two_locks_for_one_dict_are_refused() -> None:
    store: dict[LocalKey, bytes] = {}
    lock = rwlock.RWLockFair()
    connector = LocalConnector(store, lock=lock)
    with pytest.raises(ValueError, match='share one lock'):
        LocalConnector(store, lock=rwlock.RWLockFair())
    assert lock_of(LocalConnector(store)) is lock
    del connector
    # With the last connector the dict is free for another.
    LocalConnector(store, lock=rwlock.RWLockRead())


def test_locks_that_are_equal_are_still_two() -> None:
    class Equal(rwlock.RWLockFair):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = rwlock.RWLockFair.__hash__

    connector = LocalConnector(lock=Equal())
    with pytest.raises(ValueError, match='share one lock'):
        LocalConnector(connector._store, lock=Equal())


def test_one_lock_may_guard_two_dicts() -> None:
    lock = rwlock.RWLockFair()
    a, b = LocalConnector(lock=lock), LocalConnector(lock=lock)
    key = a.put(b'value')
    assert not b.exists(key)


def test_lock_and_dict_are_freed_with_the_last_connector() -> None:
    gc.disable()
    try:
        store = Store()
        dict_ref = weakref.ref(store)
        first, second = LocalConnector(store), LocalConnector(store)
        lock_ref = weakref.ref(lock_of(first))
        del store
        first.put(b'value')
        del first
        assert dict_ref() is not None
        assert lock_ref() is not None
        del second
        assert dict_ref() is None
        assert lock_ref() is None
    finally:
        gc.enable()


def test_the_registry_does_not_grow() -> None:
    connectors = [LocalConnector() for _ in range(100)]
    before = len(locks._registry)
    del connectors
    assert len(locks._registry) == before - 100


def test_the_dict_outlives_its_entry_in_the_registry() -> None:
    # Were the dict freed first, its identity could be another dict's while
    # the entry still stands.
    alive: list[bool] = []
    store = Store()
    dict_ref = weakref.ref(store)
    connector = LocalConnector(store)
    entry = weakref.ref(
        connector._guarded,
        lambda _: alive.append(dict_ref() is not None),
    )
    del store, connector
    assert entry() is None
    assert alive == [True]
    assert dict_ref() is None


def test_an_entry_in_the_registry_keeps_its_dict_alive() -> None:
    store = Store()
    dict_ref = weakref.ref(store)
    guarded = locks.guard(store)
    del store
    assert dict_ref() is not None
    del guarded
    assert dict_ref() is None


def make_connectors_at_once(
    monkeypatch: pytest.MonkeyPatch,
    *,
    locked: bool,
) -> set[object]:
    """Make a connector while another thread is half way through making one.

    Returns:
        The locks of the two.
    """
    store: dict[LocalKey, bytes] = {}
    made: list[LocalConnector] = []
    stopped = threading.Event()

    def make_second() -> None:
        made.append(LocalConnector(store))
        stopped.set()

    second = threading.Thread(target=make_second)

    class Registry(weakref.WeakValueDictionary[int, locks.GuardedDict]):
        def __setitem__(self, key: int, value: locks.GuardedDict) -> None:
            if threading.current_thread() is not second:
                second.start()
                assert stopped.wait(PATIENCE)
            super().__setitem__(key, value)

    monkeypatch.setattr(locks, '_registry', Registry())
    with instrumented_locks(stopped.set):
        registry_lock = locks.BigReaderLock()
    if not locked:
        monkeypatch.setattr(
            registry_lock,
            'exclusive',
            lambda operation, *arguments: operation(*arguments),
        )
    monkeypatch.setattr(locks, '_registry_lock', registry_lock)
    made.append(LocalConnector(store))
    second.join(PATIENCE)
    assert len(made) == 2
    return {lock_of(connector) for connector in made}


def test_connectors_made_at_once_share_one_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(make_connectors_at_once(monkeypatch, locked=True)) == 1


def test_without_a_registry_lock_they_would_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(make_connectors_at_once(monkeypatch, locked=False)) == 2


@pytest.mark.timeout(30)
@pytest.mark.parametrize('left_behind', [True, False])
@pytest.mark.parametrize('keep', [True, False])
@pytest.mark.parametrize('step', ['__init__', 'get', '__setitem__'])
def test_a_finalizer_makes_a_connector_in_the_middle_of_making_one(
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    keep: bool,
    left_behind: bool,
) -> None:
    store: dict[LocalKey, bytes] = {}
    if left_behind:  # By an interrupt: what it was for is gone.
        place = (threading.get_ident(), id(store))
        monkeypatch.setitem(locks._offers, place, weakref.ref(locks.guard({})))
    struck: list[LocalConnector | None] = []

    def strike(where: str) -> None:
        if where == step and not struck:
            struck.append(None)
            connector = LocalConnector(store)
            if keep:
                struck.append(connector)

    class Registry(weakref.WeakValueDictionary[int, locks.GuardedDict]):
        def get(self, *args: Any) -> Any:
            found = super().get(*args)
            strike('get')
            return found

        def __setitem__(self, key: int, value: locks.GuardedDict) -> None:
            strike('__setitem__')
            super().__setitem__(key, value)

    class Guarded(locks.GuardedDict):
        __slots__ = ()

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            strike('__init__')

    monkeypatch.setattr(locks, '_registry', Registry())
    monkeypatch.setattr(locks, 'GuardedDict', Guarded)
    outer = LocalConnector(store)
    assert struck
    for connector in (*struck[1:], LocalConnector(store)):
        assert connector is not None
        assert lock_of(connector) is lock_of(outer)
    assert locks._offers == {}


def test_what_an_interrupted_thread_left_is_no_offer() -> None:
    store: dict[LocalKey, bytes] = {}
    left = weakref.ref(locks.GuardedDict({}, BigReaderLock()))
    assert left() is None
    locks._offers[threading.get_ident(), id(store)] = left
    connector = LocalConnector(store)
    assert lock_of(connector) is lock_of(LocalConnector(store))
    assert locks._offers == {}
