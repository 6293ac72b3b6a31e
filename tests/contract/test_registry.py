"""One dict has one guard, whichever connectors ask for it and when."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
import weakref
from functools import partial
from typing import Any

import pytest
from readerwriterlock import rwlock
from readerwriterlock import rwlock_async

import proxystore_local
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import registry
from proxystore_local.registry import guard
from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.processes import needs_fork
from tests.support.scenes import start


@pytest.mark.parametrize('kind', LOCKS)
def test_every_lock_is_taken_and_named(kind: str) -> None:
    assert kind in repr(LocalConnector(lock=LOCKS[kind]()))


def test_no_lock_of_readerwriterlock_is_missing() -> None:
    offered = {
        name
        for name in vars(rwlock)
        if name.startswith('RWLock') and not name.startswith('RWLockable')
    }
    assert offered == set(LOCKS) - {'default'}


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
    names = r'readerwriterlock.rwlock \(RWLockFair, .*, RWLockWriteD\), not '
    with pytest.raises(TypeError, match=names) as caught:
        LocalConnector(store, lock=lock)
    assert repr(lock) in str(caught.value)
    # The refusal has not left a lock behind.
    LocalConnector(store, lock=rwlock.RWLockRead())


class Subclass(dict[LocalKey, bytes]):
    """A dict that may run code of its own in any operation."""


@pytest.mark.parametrize(
    'store',
    [[], 'text', (), LocalConnector(), Subclass()],
    ids=lambda store: type(store).__name__,
)
def test_a_store_dict_must_be_a_plain_dict(store: Any) -> None:
    message = f'must be a plain dict, not {type(store).__name__}: a subclass'
    with pytest.raises(TypeError, match=message):
        LocalConnector(store)


def test_connectors_on_one_dict_share_one_guard() -> None:
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
    assert guard(store).lock is lock
    # It is that of each: any other lock is refused.
    for _ in range(len(connectors)):
        connectors.pop()
        assert (guard(store).lock is lock) == bool(connectors)


def test_equal_dicts_have_their_own_guards() -> None:
    assert guard({}) is not guard({})


@pytest.mark.parametrize('second', [rwlock.RWLockFair, rwlock.RWLockRead])
@pytest.mark.parametrize('first', [lambda: None, rwlock.RWLockFair])
def test_two_locks_for_one_dict_are_refused(first: Any, second: Any) -> None:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=first())
    with pytest.raises(ValueError, match='share one lock'):
        LocalConnector(store, lock=second())
    # With the last connector the dict is free for another.
    del connector
    LocalConnector(store, lock=second())


def test_locks_that_are_equal_are_still_two() -> None:
    class Equal(rwlock.RWLockFair):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        __hash__ = rwlock.RWLockFair.__hash__

    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=Equal())
    with pytest.raises(ValueError, match='share one lock'):
        LocalConnector(store, lock=Equal())
    assert len(connector) == 0


def test_one_lock_may_guard_two_dicts() -> None:
    lock = rwlock.RWLockFair()
    a, b = LocalConnector(lock=lock), LocalConnector(lock=lock)
    key = a.put(b'value')
    assert not b.exists(key)


@pytest.mark.parametrize('kind', LOCKS)
def test_all_is_freed_with_the_last_connector(kind: str) -> None:
    gc.disable()
    try:
        store: dict[LocalKey, bytes] = {}
        entries = len(registry._guards)
        first = LocalConnector(store, lock=LOCKS[kind]())
        second = LocalConnector(store)
        freed = weakref.ref(guard(store))
        first.put(b'value')
        del first
        assert freed() is guard(store)
        del second
        assert freed() is None
        assert len(registry._guards) == entries
    finally:
        gc.enable()


def test_the_guard_keeps_its_dict_alive() -> None:
    # Were the dict freed first, its identity could be another dict's while
    # the entry still stands.
    guarded = guard({LocalKey('a'): b'value'})
    assert guarded.get(LocalKey('a')) == b'value'
    assert guard(guarded.store) is guarded


@pytest.mark.usefixtures('tiny_switch_interval')
def test_connectors_made_at_once_share_one_guard() -> None:
    # Two threads drop the guard of a dict and make it anew, again and again.
    # Each pass ends with the guards of all at once.
    store: dict[LocalKey, bytes] = {}
    count, rounds = 4, 500
    barrier = threading.Barrier(count)
    seen: list[dict[int, object]] = [{} for _ in range(rounds)]

    def work(me: int) -> None:
        for i in range(rounds):
            barrier.wait(PATIENCE)
            mine = guard(store)
            seen[i][me] = mine
            barrier.wait(PATIENCE)
            assert len({id(it) for it in seen[i].values()}) == 1
            barrier.wait(PATIENCE)
            seen[i].clear()
            del mine

    for thread in [start(partial(work, me)) for me in range(count)]:
        thread.result(2 * PATIENCE)


class Entries(dict[Any, Any]):
    """A registry that strikes before and after each guard is entered."""

    def __init__(self, strike: Any) -> None:
        super().__init__()
        self.strike = strike

    def setdefault(self, *arguments: Any) -> Any:
        strike, self.strike = self.strike, bool
        strike()
        found = super().setdefault(*arguments)
        strike()
        self.strike = strike
        return found


@pytest.mark.parametrize('keep', [True, False])
@pytest.mark.parametrize('threads', [True, False])
def test_another_makes_a_connector_in_the_middle_of_making_one(
    monkeypatch: pytest.MonkeyPatch,
    threads: bool,
    keep: bool,
) -> None:
    # Another thread, or a finalizer in this one.
    store: dict[LocalKey, bytes] = {}
    made = []

    def make() -> None:
        made.append(guard(store))
        if not keep:
            made.clear()

    def strike() -> None:
        if threads:
            start(make).result(PATIENCE)
        else:
            make()

    monkeypatch.setattr(registry, '_guards', Entries(strike))
    outer = guard(store)
    assert {id(guarded) for guarded in [outer, guard(store), *made]} == {
        id(outer),
    }


def test_a_dead_entry_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    # As a thread finds it between the death of the guard and the callback
    # that removes its entry.
    store: dict[LocalKey, bytes] = {}
    dead = weakref.ref(guard({}))
    assert dead() is None
    monkeypatch.setattr(registry, '_guards', {id(store): dead})
    guarded = guard(store)
    assert guard(store) is guarded
    del guarded
    assert registry._guards == {}


@needs_fork
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_a_child_passes_over_dead_entries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = weakref.ref(guard({}))
    monkeypatch.setattr(registry, '_guards', {0: dead})
    # Where what a handler of the fork raises goes to.
    raised: list[object] = []
    monkeypatch.setattr(sys, 'unraisablehook', raised.append)
    pid = os.fork()
    if pid == 0:
        os._exit(len(raised))
    assert os.waitpid(pid, 0) == (pid, 0)


def test_a_reload_keeps_what_guards_what() -> None:
    store: dict[LocalKey, bytes] = {}
    first = LocalConnector(store)
    before = guard(store)
    importlib.reload(registry)
    importlib.reload(proxystore_local)
    assert registry.guard(store) is before
    second = proxystore_local.LocalConnector(store)
    key = second.put(b'value')
    assert first.get(key) == b'value'
