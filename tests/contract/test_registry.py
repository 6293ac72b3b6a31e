"""Connectors on the same data share one lock; all is freed with the last."""

from __future__ import annotations

import gc
import itertools
import json
import sys
import weakref
from collections.abc import Callable
from functools import partial
from operator import call
from typing import Any

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.points import at_point
from tests.support.processes import fork_inside
from tests.support.processes import needs_fork
from tests.support.scenes import once
from tests.support.scenes import start


class Text(str):
    """As some readers of configuration files have it."""

    __slots__ = ()


# How to make another connector on the data of one.
ANOTHER: dict[str, Callable[[Any, dict[str, Any]], LocalConnector]] = {
    'of the dict': lambda store, config: LocalConnector(store),
    'of the configuration': lambda store, config: LocalConnector(**config),
    'from_config': lambda store, config: LocalConnector.from_config(config),
    'through JSON': lambda store, config: LocalConnector(
        **json.loads(json.dumps(config)),
    ),
    'with a subclass of str': lambda store, config: LocalConnector(
        store_id=Text(config['store_id']),
    ),
}


@pytest.mark.parametrize('another', ANOTHER.values(), ids=ANOTHER)
@pytest.mark.parametrize('lock', ['default', 'RWLockFair'])
def test_another_connector_is_on_the_same_data(
    another: Callable[[Any, dict[str, Any]], LocalConnector],
    lock: str,
) -> None:
    store: dict[LocalKey, bytes] = {}
    first = LocalConnector(store, lock=LOCKS[lock]())
    config = first.config()
    key = first.put(b'value')
    second = another(store, config)
    assert second.get(key) == b'value'
    second.set(key, b'new')
    assert first.get(key) == b'new'
    # Any of them is enough to find the data, and the lock.
    del first
    third = another(store, config)
    assert third.get(key) == b'new'
    assert third.config() == config
    assert f'lock={lock}>' in repr(third)


def test_other_data_has_another_identifier() -> None:
    store: dict[LocalKey, bytes] = {}
    first, equal = LocalConnector(store), LocalConnector(store.copy())
    assert first.config() != equal.config()


class Equal(RWLockFair):
    """A lock that equals another is still another."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal)

    __hash__ = RWLockFair.__hash__


@pytest.mark.parametrize('lock', [None, RWLockFair(), Equal()])
def test_another_lock_is_refused(lock: Any) -> None:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=lock)
    given: dict[str, Any]
    for given in ({'store_dict': store}, connector.config()):
        LocalConnector(**given, lock=lock)
        with pytest.raises(ValueError, match='another lock already'):
            LocalConnector(**given, lock=Equal())
    # With the last connector the dict is free for another.
    del connector
    LocalConnector(store, lock=Equal())


@pytest.mark.parametrize('lock', LOCKS)
def test_all_is_freed_with_the_last_connector(lock: str) -> None:
    class Key:
        pass

    first, key = LocalConnector(lock=LOCKS[lock]()), Key()
    first.set((key,), b'value')
    freed = weakref.ref(key)
    second = LocalConnector.from_config(first.config())
    del first, key
    assert freed() is not None
    del second
    assert freed() is None


def test_nothing_is_left_of_a_connector() -> None:
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        LocalConnector()
    assert len(gc.get_objects()) < before + 100


@pytest.mark.parametrize('keep', [True, False])
def test_another_is_made_at_every_point_of_making_one(keep: bool) -> None:
    """By another thread, or by a finalizer in this one."""

    def make_at(point: int) -> bool:
        store: dict[LocalKey, bytes] = {}
        made: list[LocalConnector] = []

        def make() -> None:
            made.append(LocalConnector(store))

        def intrude() -> None:
            make()
            if not keep:
                made.clear()

        found = at_point(point, intrude, make)
        make()
        first, *others = [connector.config() for connector in made]
        assert others == [first] * len(others)
        return found

    assert make_at(1)
    for point in itertools.count(2):
        if not make_at(point):
            break


@pytest.mark.parametrize('made_of', ['dict', 'configuration', 'nothing'])
def test_an_exception_at_every_point_of_making_one_is_raised(
    made_of: str,
) -> None:
    """What is raised as something dies, CPython only prints."""
    store: dict[LocalKey, bytes] = {}
    first = LocalConnector(store)
    makers: dict[str, Callable[[], LocalConnector]] = {
        'dict': partial(LocalConnector, store),
        'configuration': partial(LocalConnector, **first.config()),
        'nothing': LocalConnector,  # Its data dies as it is dropped.
    }

    def interrupt() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        try:
            found = at_point(point, interrupt, makers[made_of])
        except KeyboardInterrupt:
            continue
        assert not found, 'was swallowed'
        break
    assert point > 5


@pytest.mark.usefixtures('tiny_switch_interval')
def test_threads_that_make_and_drop_connectors_share_the_data() -> None:
    store: dict[LocalKey, bytes] = {}

    def work() -> None:
        for _ in range(10_000):
            first = LocalConnector(store)
            assert LocalConnector(store).config() == first.config()
            del first

    for thread in [start(work) for _ in range(4)]:
        thread.result(2 * PATIENCE)


def strike(store: dict[LocalKey, bytes], hook: Callable[[], object]) -> None:
    """Call a hook when a dict's guard is dead, but the registry has it still.

    The collector clears the weak references to all that it frees, and calls
    their callbacks then: first, as a rule, that of the oldest object, which
    is the first connector. Without a GIL the order is another, and a hundred
    are enough for one to come before the guard.
    """
    connectors: list[Any] = [LocalConnector(store) for _ in range(100)]
    callback = once(hook)
    watched = [weakref.ref(it, lambda _: callback()) for it in connectors]
    connectors.append(connectors)
    del connectors
    gc.collect()
    assert len(watched) == 100


def test_a_connector_is_made_when_the_last_has_just_died() -> None:
    store: dict[LocalKey, bytes] = {}
    made: list[LocalConnector] = []
    strike(store, lambda: made.append(LocalConnector(store)))
    # The registry has not lost it as it removed the dead one.
    assert LocalConnector(store).config() == made[0].config()


@needs_fork
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_a_fork_when_the_last_has_just_died(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Where what a handler of the fork raises goes to.
    raised: list[object] = []
    monkeypatch.setattr(sys, 'unraisablehook', raised.append)
    statuses: list[int] = []

    def check() -> None:
        assert raised == []

    strike({}, lambda: statuses.append(fork_inside(call, check)))
    assert statuses == [0]
