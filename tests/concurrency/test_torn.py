"""Without a GIL, threads that look as fast as they can see nothing torn.

With a GIL, what they look at changes at one stroke anyway. TORN_SECONDS says
for how long they look.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import seqlocked
from tests.support.locks import HidesWritesThatAreOver
from tests.support.locks import LetsTwoWritersIn
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import B
from tests.support.processes import FREE_THREADED
from tests.support.scenes import minted
from tests.support.scenes import start

SECONDS = float(os.environ.get('TORN_SECONDS', '2'))
THREADS = 9
TOTAL = 350_000 // THREADS * THREADS  # A million in three tests.
KEYS = [LocalKey(str(number)) for number in range(10)]

without_gil = pytest.mark.skipif(not FREE_THREADED, reason='there is a GIL')


class Batches:
    """Two threads write one batch of values each, to the same keys."""

    writers = 2
    minted = staticmethod(partial(minted, KEYS))

    def __init__(self) -> None:
        self.connector = LocalConnector(dict.fromkeys(KEYS, b''))

    def write(self, thread: int) -> None:
        self.connector.put_batch([b'%d' % thread] * len(KEYS))

    def look(self) -> bool:
        return len(set(self.connector.get_batch(KEYS))) == 1


class Counts:
    """Threads count the objects that a thread puts ten at a time."""

    writers = 1
    minted = staticmethod(nullcontext)

    def __init__(self) -> None:
        self.connector = LocalConnector()

    def write(self, thread: int) -> None:
        self.connector.put_batch([b''] * len(KEYS))
        if len(self.connector) > 10_000:
            self.connector = LocalConnector()

    def look(self) -> bool:
        return len(self.connector) % len(KEYS) == 0


class Pairs:
    """A thread counts up one object, and then the other."""

    writers = 1
    minted = staticmethod(nullcontext)
    count = 0

    def __init__(self) -> None:
        self.connector = LocalConnector({A: b'0', B: b'0'})

    def write(self, thread: int) -> None:
        self.count += 1
        self.connector.set(A, b'%d' % self.count)
        self.connector.set(B, b'%d' % self.count)

    def look(self) -> bool:
        a, b = map(int, self.connector.get_batch([A, B]))
        d, c = map(int, self.connector.get_batch([B, A]))
        return a in (b, b + 1) and c in (d, d + 1)


def torn(kind: Any) -> tuple[int, int]:
    """Look while others write: how often, and how often it was torn."""
    watched = kind()
    over = threading.Event()

    def write(thread: int) -> None:
        while not over.is_set():
            watched.write(thread)

    def look() -> tuple[int, int]:
        looks = bad = 0
        while not over.is_set():
            looks += 1
            bad += not watched.look()
        return looks, bad

    with kind.minted():
        jobs: list[Callable[[], Any]] = [look] * (THREADS - kind.writers)
        threads = [start(job) for job in jobs]
        others = [start(partial(write, n)) for n in range(kind.writers)]
        time.sleep(SECONDS)
        over.set()
        found = [thread.result(PATIENCE) for thread in threads]
        for thread in others:
            thread.result(PATIENCE)
    looks, bad = map(sum, zip(*found))
    print(f'{looks:,} looks, {bad:,} torn')
    return looks, bad


@without_gil
@pytest.mark.timeout(60 + 3 * SECONDS)
@pytest.mark.parametrize('kind', [Batches, Counts, Pairs])
def test_nothing_torn_is_seen(kind: Any) -> None:
    looks, bad = torn(kind)
    assert looks > 1000
    assert bad == 0


@without_gil
@pytest.mark.parametrize('kind', [Batches, Counts, Pairs])
def test_without_the_second_look_it_is(kind: Any) -> None:
    with mock.patch.object(seqlocked, 'Seqlock', HidesWritesThatAreOver):
        assert torn(kind)[1] > 0


def one_at_a_time(lock: Any, total: int) -> int:
    """Let threads count, each time they have taken the stamp away."""
    counts = [0]
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        left = total // THREADS
        barrier.wait(PATIENCE)
        while left:
            try:
                del lock.stamp
            except AttributeError:
                continue
            count = counts[0]
            abs(count)  # With a GIL, another thread may go on here.
            counts[0] = count + 1
            lock.stamp = count
            left -= 1

    for thread in [start(work) for _ in range(THREADS)]:
        thread.result(4 * PATIENCE)
    return counts[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize('look_at', [bool, vars, dir])
@pytest.mark.usefixtures('tiny_switch_interval')
def test_one_thread_at_a_time_can_delete_the_stamp(look_at: Any) -> None:
    lock = seqlocked.Seqlock()
    look_at(lock)
    assert one_at_a_time(lock, TOTAL) == TOTAL


@pytest.mark.timeout(300)
@pytest.mark.usefixtures('tiny_switch_interval')
def test_two_threads_at_a_time_are_noticed() -> None:
    assert one_at_a_time(LetsTwoWritersIn(), TOTAL) < TOTAL
