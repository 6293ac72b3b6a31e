"""Reads share the dict, a write has it alone, and a batch is seen whole.

What is checked between threads is a function of a lock maker: it must hold for
every lock, and fail with one that does too little.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.seqlocked import SeqlockedDict
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import Mutex
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS
from tests.support.operations import READS
from tests.support.operations import WRITES
from tests.support.scenes import hooked
from tests.support.scenes import NEW
from tests.support.scenes import NEWER
from tests.support.scenes import once
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


def check_put_batch_is_never_seen_in_part(make_lock: LockMaker) -> None:
    """Who looks in the middle of a put_batch sees nothing or all of it."""
    looks: list[Callable[[LocalConnector], int]] = [
        lambda connector: len(connector) - len(CONTENTS),
        lambda connector: (
            len(connector.config()['store_dict']) - len(CONTENTS)
        ),
        lambda connector: 2 - connector.get_batch([NEW, NEWER]).count(None),
    ]
    for look in looks:
        with Scene(make_lock) as scene:
            scene.stop('put_batch')
            _, seen = scene.attempt(partial(look, scene.connector))
        assert seen.result() in (0, 2), 'saw 1 of 2 new objects'


def check_get_batch_sees_one_moment(make_lock: LockMaker) -> None:
    """Values that were never there at once are not seen at once."""
    with Scene(make_lock) as scene:

        def write() -> None:
            scene.connector.set(A, b'1')
            scene.connector.set(B, b'1')

        read = scene.stop('get_batch', first=A, last=A)
        scene.attempt(write)
    assert read.result() in ([b'a0', b'b0', b'a0'], [b'1'] * 3)


def check_readers_share(make_lock: LockMaker) -> None:
    """Every two reads are inside the dict at once."""
    for first, second in itertools.product(STOPPABLE, READS):
        if first in READS:
            how_far = meet(make_lock, first, second)
            assert how_far == 'done', f'{second} during {first}'


def check_queued_readers_share(make_lock: LockMaker) -> None:
    """Reads that waited for a write are inside the dict at once."""
    count = 3
    inside = threading.Barrier(count)
    with Scene(make_lock) as scene:
        scene.stop('set')
        for _ in range(count):
            # Without a GIL, a dict may compare a key twice as it reads once.
            key = hooked(A, once(lambda: inside.wait(PATIENCE)))
            how_far, _ = scene.attempt(partial(scene.connector.exists, key))
            assert how_far == 'blocked'


EXCLUDING = [
    check_writers_exclude,
    check_put_batch_is_never_seen_in_part,
    check_get_batch_sees_one_moment,
]
SHARING = [check_readers_share, check_queued_readers_share]

every_lock = pytest.mark.parametrize('lock', LOCKS)


@every_lock
@pytest.mark.parametrize('check', EXCLUDING + SHARING)
def test_holds_with_each_lock(
    check: Callable[[LockMaker], None], lock: str
) -> None:
    check(LOCKS[lock])


@pytest.mark.parametrize('check', EXCLUDING)
def test_without_a_lock_fails(check: Callable[[LockMaker], None]) -> None:
    with pytest.raises((AssertionError, KeyError)):
        check(NoLock)


@pytest.mark.parametrize('check', SHARING)
def test_with_a_mutex_fails(
    monkeypatch: pytest.MonkeyPatch,
    check: Callable[[LockMaker], None],
) -> None:
    # Readers wait for each other inside, which is in vain here.
    monkeypatch.setitem(globals(), 'PATIENCE', 1)
    with pytest.raises((AssertionError, threading.BrokenBarrierError)):
        check(Mutex)


@every_lock
def test_iterables_are_consumed_before_the_lock_is_acquired(lock: str) -> None:
    connector = LocalConnector(lock=LOCKS[lock]())
    written: list[LocalKey] = []

    def objs() -> Iterator[bytes]:
        for i in range(3):
            written.append(connector.put(b'%d' % i))
            yield b'batch'

    def keys() -> Iterator[LocalKey]:
        for key in written:
            yield key
            connector.evict(key)

    batch = connector.put_batch(objs())
    assert len(connector) == 6
    # Every key was evicted before the batch was read.
    assert connector.get_batch(keys()) == [None, None, None]
    assert connector.get_batch(batch) == [b'batch'] * 3


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
