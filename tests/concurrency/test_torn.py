"""Without a GIL, threads that read as fast as they can see nothing torn.

With a GIL, what they read changes at one stroke anyway. TORN_LOOKS says how
often each thread looks.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from unittest import mock

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import seqlocked
from proxystore_local.seqlocked import Seqlock
from tests.support.locks import HidesWritesThatAreOver
from tests.support.locks import LetsTwoWritersIn
from tests.support.locks import PATIENCE
from tests.support.processes import FREE_THREADED
from tests.support.scenes import minted
from tests.support.scenes import start

LOOKS = int(os.environ.get('TORN_LOOKS', '30_000'))
DELETIONS = 30_000
THREADS = 9
KEYS = [LocalKey(str(number)) for number in range(10)]

without_gil = pytest.mark.skipif(not FREE_THREADED, reason='there is a GIL')


def count_torn_looks() -> int:
    """Read batches in seven threads while two others write them."""
    connector = LocalConnector(dict.fromkeys(KEYS, b''))
    over = threading.Event()

    def write(value: bytes) -> None:
        while not over.is_set():
            connector.put_batch([value] * len(KEYS))

    def look() -> int:
        return sum(len({*connector.get_batch(KEYS)}) > 1 for _ in range(LOOKS))

    with minted(KEYS):
        writers = [start(partial(write, value)) for value in (b'1', b'2')]
        readers = [start(look) for _ in range(THREADS - len(writers))]
        torn = sum(reader.result() for reader in readers)
        over.set()
        for writer in writers:
            writer.result(PATIENCE)
    return torn


@without_gil
@pytest.mark.timeout(60 + LOOKS / 500)
def test_no_batch_is_torn() -> None:
    assert count_torn_looks() == 0


@without_gil
def test_without_the_second_look_batches_are_torn() -> None:
    with mock.patch.object(seqlocked, 'Seqlock', HidesWritesThatAreOver):
        assert count_torn_looks() > 0


def all_deletions_are_counted(lock: Seqlock) -> bool:
    """Let threads delete the stamp, and count while it is not there."""
    count = 0
    barrier = threading.Barrier(THREADS)

    def work() -> None:
        nonlocal count
        left = DELETIONS
        barrier.wait(PATIENCE)
        while left:
            try:
                del lock.stamp
            except AttributeError:
                continue
            before = count
            abs(before)  # With a GIL, another thread may go on here.
            count = before + 1
            lock.stamp = before
            left -= 1

    for thread in [start(work) for _ in range(THREADS)]:
        thread.result(4 * PATIENCE)
    return count == THREADS * DELETIONS


@pytest.mark.timeout(300)
@pytest.mark.usefixtures('tiny_switch_interval')
def test_one_thread_at_a_time_can_delete_the_stamp() -> None:
    assert all_deletions_are_counted(Seqlock())


@pytest.mark.timeout(300)
@pytest.mark.usefixtures('tiny_switch_interval')
def test_two_threads_at_a_time_are_noticed() -> None:
    assert not all_deletions_are_counted(LetsTwoWritersIn())
