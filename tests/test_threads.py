"""Threads come and go, and what they leave costs nothing."""

from __future__ import annotations

import gc
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
    """Threads that have read at once, so under own locks, and stay alive."""
    inside = threading.Barrier(count)
    done = threading.Barrier(count + 1)
    leave = threading.Event()

    def work() -> None:
        shared[0](inside.wait, PATIENCE)
        done.wait(PATIENCE)
        leave.wait(PATIENCE)

    # A list, so that nothing here keeps the lock once all have read.
    shared = [connector._shared]
    del connector
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    done.wait(PATIENCE)
    shared.clear()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.mark.timeout(300)
def test_a_write_costs_what_it_cost_before_10000_threads() -> None:
    with counted_locks():
        connector = LocalConnector(lock=BigReaderLock())
        connector.get(A)
        before = price_of_a_write(connector)
        for _ in range(5_000):
            with reading_threads(connector, 2):
                pass
            # The first write after that is the only one to pay for it.
            assert price_of_a_write(connector) <= before + 2 * 2
            assert price_of_a_write(connector) == before
        gc.collect()
        # The gate's alone: what the threads have had is gone.
        assert len(CountingLock.alive) == 1


@pytest.mark.timeout(300)
def test_threads_that_only_read_leave_nothing() -> None:
    with counted_locks():
        connector = LocalConnector(lock=BigReaderLock())
        for _ in range(1_000):
            with reading_threads(connector, 2):
                pass
        # Locks are entered by the identities of threads, which recur.
        assert len(CountingLock.alive) < 100


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
        with reading_threads(connector, 3):
            # A gate, and the own locks of all but one, who had the gate.
            # Unless it had to queue there: then it has one as well.
            assert len(CountingLock.alive) in (3, 4)
            del connector
            if not FREE_THREADED:
                assert len(CountingLock.alive) == 0
        # There, a thread itself frees what it has made, when it next runs.
        assert len(CountingLock.alive) == 0
