"""Batches are seen whole or not at all, and read as of one moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.guarded import GuardedDict
from tests.checks import A
from tests.checks import B
from tests.checks import check_batches_under_load
from tests.checks import check_get_batch_sees_one_moment
from tests.checks import check_put_batch_is_never_seen_in_part
from tests.harness import LOCKS

every_lock = pytest.mark.parametrize('lock', LOCKS)


@every_lock
def test_put_batch_is_never_seen_in_part(lock: str) -> None:
    check_put_batch_is_never_seen_in_part(LOCKS[lock])


@every_lock
def test_get_batch_sees_one_moment(lock: str) -> None:
    check_get_batch_sees_one_moment(LOCKS[lock])


@every_lock
@pytest.mark.usefixtures('tiny_switch_interval')
def test_batches_under_load(lock: str) -> None:
    check_batches_under_load(LOCKS[lock])


@every_lock
@pytest.mark.timeout(30)
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
@pytest.mark.timeout(30)
def test_a_buffer_is_copied_before_the_lock_is_taken(lock: str) -> None:
    connector = LocalConnector(lock=LOCKS[lock]())
    data = bytearray(b'old')
    released = threading.Event()

    class Key(LocalKey):
        """A key that is hashed in the middle of the write."""

        def __hash__(self) -> int:
            data[:] = b'new'
            released.set()
            return super().__hash__()

    key = Key('key')
    connector.set(key, data)
    assert released.is_set()
    assert connector.get(LocalKey('key')) == b'old'


def test_a_batch_for_which_there_is_no_memory_leaves_nothing() -> None:
    # tests/test_tools.py lets allocations fail, where Python can do that.
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
