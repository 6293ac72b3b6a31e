"""Connectors on the same data share one lock; all is freed with the last."""

from __future__ import annotations

import gc
import itertools
import json
import weakref
from typing import Any

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.points import at_point
from tests.support.scenes import start


class Text(str):
    """As some readers of configuration files have it."""


@pytest.mark.parametrize('lock', ['default', 'RWLockFair'])
def test_connectors_on_the_same_data_share_one_lock(lock: str) -> None:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=LOCKS[lock]())
    config = connector.config()
    key = connector.new_key()
    given: list[dict[str, Any]] = [
        {'store_dict': store},
        json.loads(json.dumps(config)),
        {'store_id': Text(config['store_id'])},
    ]
    for number, options in enumerate(given):
        connector.set(key, b'%d' % number)
        # It takes the place of the last one, which keeps all until then.
        connector = LocalConnector(**options)
        assert connector.get(key) == b'%d' % number
        assert connector.config() == config
        assert f'lock={lock}>' in repr(connector)


@pytest.mark.parametrize('lock', [None, RWLockFair()])
def test_another_lock_is_refused(lock: Any) -> None:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=lock)
    given: dict[str, Any]
    for given in ({'store_dict': store}, connector.config()):
        LocalConnector(**given, lock=lock)
        with pytest.raises(ValueError, match='another lock already'):
            LocalConnector(**given, lock=RWLockFair())
    # With the last connector the dict is free for another.
    del connector
    LocalConnector(store, lock=RWLockFair())


@pytest.mark.parametrize('lock', LOCKS)
def test_all_is_freed_with_the_last_connector(lock: str) -> None:
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(100):
        first = LocalConnector(lock=LOCKS[lock]())
        key = first.put(b'value')
        second = LocalConnector.from_config(first.config())
        del first
        assert second.get(key) == b'value'
        del second
    # What is left of each would be a hundred objects.
    assert len(gc.get_objects()) < before + 100


@pytest.mark.parametrize('keep', [True, False])
def test_another_is_made_at_every_point_of_making_one(keep: bool) -> None:
    """By another thread, or by a finalizer in this one."""
    store: dict[LocalKey, bytes] = {}
    made: list[LocalConnector] = []

    def make() -> None:
        made.append(LocalConnector(store))

    def intrude() -> None:
        make()
        if not keep:
            made.clear()

    for point in itertools.count(1):
        found = at_point(point, intrude, make)
        make()
        first, *others = [connector.config() for connector in made]
        assert others == [first] * len(others)
        made.clear()
        if not found:
            break
    assert point > 5


def test_an_exception_at_every_point_of_making_one_is_raised() -> None:
    """What is raised as something dies, CPython only prints."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    for point in itertools.count(1):
        try:
            found = at_point(point, interrupt, LocalConnector)
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


class Watched:
    """So small that without a GIL the collector comes to it first."""

    __slots__ = ('__weakref__',)


def test_another_is_made_when_the_last_has_just_died() -> None:
    """The dict's guard is dead then, but the registry has it still.

    The collector clears the weak references to all that it frees, and then
    calls their callbacks: with a GIL in the order in which young objects were
    made, and without a GIL those of small objects first.
    """
    store: dict[LocalKey, bytes] = {}
    made: list[LocalConnector] = []
    gc.collect()  # What is made next is all that is young.
    garbage: list[Any] = [Watched(), LocalConnector(store)]
    watched = weakref.ref(
        garbage[0], lambda _: made.append(LocalConnector(store))
    )
    garbage.append(garbage)
    del garbage
    gc.collect()
    assert watched() is None
    # The registry has not lost it as it removed the dead one.
    assert LocalConnector(store).config() == made[0].config()
