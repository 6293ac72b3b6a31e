"""Threads come and go, and what they leave costs nothing."""

from __future__ import annotations

import sys
import threading
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from typing import ClassVar
from unittest import mock

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from proxystore_local import locks
from tests.checks import A
from tests.harness import PATIENCE

FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()


class CountingLock:
    """An RLock that counts what is done with it."""

    operations = 0
    alive: ClassVar[weakref.WeakSet[CountingLock]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.alive.add(self)

    def acquire(self, *args: Any) -> bool:
        type(self).operations += 1
        return self._lock.acquire(*args)

    def release(self) -> None:
        self._lock.release()
        type(self).operations += 1


@contextmanager
def counted_locks() -> Iterator[None]:
    instrumented = types.SimpleNamespace(
        RLock=CountingLock,
        get_ident=threading.get_ident,
        local=threading.local,
    )
    with mock.patch.object(locks, 'threading', instrumented):
        yield


def price_of_a_write(connector: LocalConnector) -> int:
    """Count the lock operations of a write."""
    before = CountingLock.operations
    connector.set(A, b'')
    return CountingLock.operations - before


@contextmanager
def reading_threads(connector: LocalConnector, count: int) -> Iterator[None]:
    """Threads that have read, and stay alive."""
    leave = threading.Event()
    read = threading.Barrier(count + 1)

    def work() -> None:
        connector.get(A)
        read.wait(PATIENCE)
        leave.wait(PATIENCE)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    read.wait(PATIENCE)
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.mark.timeout(300)
def test_a_write_costs_what_it_cost_before_10000_threads() -> None:
    with counted_locks():
        lock = BigReaderLock()
        connector = LocalConnector(lock=lock)
        connector.get(A)
        before = price_of_a_write(connector)
        for _ in range(10_000):
            thread = threading.Thread(target=connector.get, args=(A,))
            thread.start()
            thread.join()
        assert len(lock._readers) == 1
        assert price_of_a_write(connector) == before


@pytest.mark.timeout(60)
@pytest.mark.parametrize('count', [1, 2, 8, 32])
def test_a_write_takes_two_lock_operations_for_each_reader(count: int) -> None:
    with counted_locks():
        connector = LocalConnector(lock=BigReaderLock())
        alone = price_of_a_write(connector)
        with reading_threads(connector, count):
            assert price_of_a_write(connector) <= alone + 2 * count
            # Nobody has read since, so there is nobody to wait for.
            assert price_of_a_write(connector) == alone
        assert price_of_a_write(connector) == alone


@pytest.mark.timeout(60)
def test_what_threads_have_is_freed_with_the_last_connector() -> None:
    with counted_locks():
        connector = LocalConnector(lock=BigReaderLock())
        connector.get(A)
        connectors = [connector]
        leave = threading.Event()
        read = threading.Barrier(2)

        def work() -> None:
            connectors[0].get(A)
            read.wait(PATIENCE)
            leave.wait(PATIENCE)

        thread = threading.Thread(target=work)
        thread.start()
        read.wait(PATIENCE)
        # A gate, and the own locks of two threads.
        assert len(CountingLock.alive) == 3
        del connector
        connectors.clear()
        if not FREE_THREADED:
            assert len(CountingLock.alive) == 0
        # There, a thread itself frees what it has made, when it next runs.
        leave.set()
        thread.join(PATIENCE)
        assert len(CountingLock.alive) == 0


def test_a_thread_interrupted_before_it_is_known_leaves_nothing() -> None:
    # Not even a complaint that its key is not there to be discarded, which
    # would fail the test.
    readers: set[Any] = set()
    reader = locks._Reader(readers.discard)
    del reader
    reader = locks._Reader(readers.discard)
    readers.add(reader.key)
    del reader
    assert readers == set()
