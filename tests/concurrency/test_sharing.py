"""Reads share the dict, a write has it alone, get_batch sees one moment.

What is checked between threads is a function of a lock maker: it must hold for
every lock, and fail with one that does too little.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local.seqlocked import SeqlockedDict
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import Mutex
from tests.support.locks import NoLock
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import OPERATIONS
from tests.support.operations import READS
from tests.support.operations import WRITES
from tests.support.scenes import hooked
from tests.support.scenes import Scene
from tests.support.scenes import STOPPABLE


def meet(make_lock: LockMaker, first: str, second: str) -> str:
    """Try an operation in the middle of another: `done`, or `blocked`.

    They are done by two connectors on one dict.
    """
    with Scene(make_lock) as scene:
        other = LocalConnector(scene.store, include_data_in_config=True)
        scene.stop(first)
        return scene.attempt(partial(OPERATIONS[second], other))[0]


def check_writers_exclude(make_lock: LockMaker) -> None:
    """No operation ends in the middle of one that writes."""
    for first, second in itertools.product(STOPPABLE, OPERATIONS):
        if first in WRITES:
            how_far = meet(make_lock, first, second)
            assert how_far == 'blocked', f'{second} during {first}'


def check_get_batch_sees_one_moment(make_lock: LockMaker) -> None:
    """Values that were never there at once are not seen at once."""
    with Scene(make_lock) as scene:

        def write() -> None:
            scene.connector.set(A, b'1')
            scene.connector.set(B, b'1')

        read = scene.stop('get_batch')  # Of A, B and A.
        scene.attempt(write)
    assert read.result() in ([b'a0', b'b0', b'a0'], [b'1'] * 3)


def check_readers_share(make_lock: LockMaker) -> None:
    """Every two reads are inside the dict at once."""
    for first, second in itertools.product(STOPPABLE, READS):
        if first in READS:
            how_far = meet(make_lock, first, second)
            assert how_far == 'done', f'{second} during {first}'


# What is checked, and a lock that does too little for it.
CHECKS: dict[Callable[[LockMaker], None], LockMaker] = {
    check_writers_exclude: NoLock,
    check_get_batch_sees_one_moment: NoLock,
    check_readers_share: Mutex,
}

every_lock = pytest.mark.parametrize('lock', LOCKS)


@every_lock
@pytest.mark.parametrize('check', CHECKS)
def test_holds_with_each_lock(
    check: Callable[[LockMaker], None], lock: str
) -> None:
    check(LOCKS[lock])


@pytest.mark.parametrize('check', CHECKS)
def test_fails_with_a_lock_that_does_too_little(
    check: Callable[[LockMaker], None],
) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(CHECKS[check])


@every_lock
def test_iterables_are_consumed_before_the_lock_is_acquired(lock: str) -> None:
    connector = LocalConnector(lock=LOCKS[lock]())

    def write_and_return(item: Any) -> Any:
        connector.evict(connector.put(b''))
        return item

    keys = connector.put_batch(map(write_and_return, [b'spam', b'eggs']))
    values = connector.get_batch(map(write_and_return, keys))
    assert values == [b'spam', b'eggs']


@every_lock
def test_a_buffer_is_copied_before_the_lock_is_acquired(lock: str) -> None:
    connector = LocalConnector({A: b''}, lock=LOCKS[lock]())
    data = bytearray(b'old')
    connector.set(hooked(A, lambda: data.__setitem__(0, ord('X'))), data)
    assert data == b'Xld'
    assert connector.get(A) == b'old'


def test_a_batch_for_which_there_is_no_memory_leaves_nothing() -> None:
    # faults/test_tools.py lets allocations fail, where Python can do that.
    class Full(SeqlockedDict):
        def exclusive(self, function: Any, *arguments: Any) -> Any:
            if isinstance(arguments[0], dict):
                self.store[A] = b'1'
                raise MemoryError
            return super().exclusive(function, *arguments)

    full = Full({}, 'full')
    with pytest.raises(MemoryError):
        full.put_batch({A: b'1', B: b'1'})
    assert full.store == {}
