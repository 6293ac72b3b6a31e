"""Batches are seen whole or not at all, and read as of one moment."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.guarded import GuardedDict
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.scenes import hooked
from tests.support.scenes import NEW
from tests.support.scenes import NEWER
from tests.support.scenes import Scene

every_lock = pytest.mark.parametrize('lock', LOCKS)

# How to see how many of the two new keys of a batch are there.
LOOKS: list[Callable[[LocalConnector], int]] = [
    lambda connector: len(connector) - len(CONTENTS),
    lambda connector: len(connector.config()['store_dict']) - len(CONTENTS),
    lambda connector: 2 - connector.get_batch([NEW, NEWER]).count(None),
]


def check_put_batch_is_never_seen_in_part(make_lock: LockMaker) -> None:
    """Who looks in the middle of a put_batch sees nothing or all of it."""
    for look in LOOKS:
        with Scene(make_lock) as scene:
            scene.stop('put_batch')
            _, seen = scene.attempt(partial(look, scene.connector))
        assert seen.result() in (0, 2), 'saw 1 of 2 new objects'


def check_get_batch_sees_one_moment(make_lock: LockMaker) -> None:
    """Who reads while others write sees no later write without an earlier."""
    with Scene(make_lock) as scene:

        def write() -> None:
            scene.connector.set(A, b'1')
            scene.connector.set(B, b'1')

        read = scene.stop('get_batch', [A, B, A])
        scene.attempt(write)
    assert read.result() in ([b'a0', b'b0', b'a0'], [b'1'] * 3)


ATOMIC = {
    'put_batch is never seen in part': check_put_batch_is_never_seen_in_part,
    'get_batch sees one moment': check_get_batch_sees_one_moment,
}


@every_lock
@pytest.mark.parametrize('check', ATOMIC)
def test_batches(check: str, lock: str) -> None:
    ATOMIC[check](LOCKS[lock])


@every_lock
def test_iterables_are_consumed_before_the_lock_is_taken(lock: str) -> None:
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
def test_a_buffer_is_copied_before_the_lock_is_taken(lock: str) -> None:
    connector = LocalConnector({A: b''}, lock=LOCKS[lock]())
    data = bytearray(b'old')
    inside: list[None] = []

    def change() -> None:
        inside.append(data.__setitem__(slice(None), b'new'))

    connector.set(hooked(A, change), data)
    assert inside
    assert connector.get(A) == b'old'


def test_a_batch_for_which_there_is_no_memory_leaves_nothing() -> None:
    # faults/test_tools.py lets allocations fail, where Python can do that.
    class Full(GuardedDict):
        def exclusive(
            self,
            function: Callable[..., Any],
            *arguments: Any,
        ) -> Any:
            if function == self.store.update:
                self.store[A] = b'1'
                raise MemoryError
            return super().exclusive(function, *arguments)

    guarded = Full({})
    with pytest.raises(MemoryError):
        guarded.put_batch({A: b'1', B: b'1'})
    assert guarded.store == {}
