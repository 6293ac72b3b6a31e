"""Thousands of operations of threads on few keys, recorded, linearizable."""

from __future__ import annotations

import random
import threading
from time import perf_counter_ns
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import LOCKS
from tests.harness import minted
from tests.harness import NoLock
from tests.linearizability import assert_linearizable
from tests.linearizability import Call
from tests.programs import CONTENTS
from tests.programs import do
from tests.programs import look
from tests.programs import PATIENCE
from tests.programs import READS
from tests.programs import Step
from tests.programs import WRITES
from tests.programs import YIELDING

THREADS = 4
# A window is what the threads do between two moments at which none does
# anything. So what is checked for each is few operations, from known contents.
WINDOWS = 300
STEPS = 4  # Of each thread, in a window.


def record(
    store: dict[LocalKey, bytes],
    connectors: list[LocalConnector],
) -> list[list[Call]]:
    """Let threads do random steps, and record them, window by window."""
    windows: list[list[Call]] = [[] for _ in range(WINDOWS)]
    barrier = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        draw = random.Random(thread)
        for window in range(WINDOWS):
            steps = [
                Step(draw.choice(READS + WRITES), draw.randrange(2))
                for _ in range(STEPS)
            ]
            calls = []
            barrier.wait(PATIENCE)
            for number, step in enumerate(steps):
                value = b'%d.%d.%d' % (window, thread, number)
                target = draw.choice(connectors)
                calls.append(do(thread, target, step, value, perf_counter_ns))
            if barrier.wait(PATIENCE) == 0:
                windows[window].append(look(store, perf_counter_ns()))
            barrier.wait(PATIENCE)
            histories[thread].append(calls)

    histories: list[list[list[Call]]] = [[] for _ in range(THREADS)]
    threads = [
        threading.Thread(target=work, args=(thread,), daemon=True)
        for thread in range(THREADS)
    ]
    with minted(YIELDING):
        for worker in threads:
            worker.start()
        for worker in threads:
            worker.join()
    for history in histories:
        for window, calls in zip(windows, history, strict=True):
            window.extend(calls)
    return windows


def check(lock: Any) -> None:
    store = dict(CONTENTS)
    windows = record(
        store,
        [
            LocalConnector(store, include_data_in_config=True, lock=lock),
            LocalConnector(store, include_data_in_config=True),
        ],
    )
    contents = CONTENTS
    for window in windows:
        assert_linearizable(window, contents)
        contents = window[0].result['store_dict']


@pytest.mark.parametrize('lock', LOCKS)
@pytest.mark.usefixtures('tiny_switch_interval')
def test_histories_of_threads_are_linearizable(lock: str) -> None:
    check(LOCKS[lock]())


@pytest.mark.usefixtures('tiny_switch_interval')
def test_histories_of_threads_without_a_lock_are_not() -> None:
    with pytest.raises(AssertionError, match='not linearizable'):
        check(NoLock())
