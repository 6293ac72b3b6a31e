"""Operations of threads that run freely are recorded, and linearizable."""

from __future__ import annotations

import random
import threading
from functools import partial
from time import perf_counter_ns
from time import sleep

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import OPERATIONS
from tests.support.operations import Program
from tests.support.operations import Step
from tests.support.scenes import hooked
from tests.support.scenes import minted
from tests.support.scenes import start

pytestmark = pytest.mark.usefixtures('tiny_switch_interval')


def yielding_keys() -> list[LocalKey]:
    """Make KEYS anew; where one is compared, a thread offers its turn."""
    return [hooked(key, partial(sleep, 0)) for key in KEYS]


def check(program: Program, make_lock: LockMaker) -> None:
    """Run a program on threads that all start at once."""
    store = dict(CONTENTS)
    lock = make_lock()
    # One for each thread.
    connectors = [
        LocalConnector(store, include_data_in_config=True, lock=lock)
        for _ in program
    ]
    barrier = threading.Barrier(len(program))

    def do(thread: int, number: int, step: Step) -> Call:
        value = b'%d.%d' % (thread, number)
        arguments = step.arguments(value, yielding_keys())
        method = getattr(connectors[thread], step.name)
        start = perf_counter_ns()
        try:
            result = method(*arguments)
        except (AssertionError, KeyError) as error:
            result = error
        end = perf_counter_ns()
        return Call(thread, step.name, arguments, result, start, end)

    def work(thread: int) -> list[Call]:
        barrier.wait(PATIENCE)
        return [do(thread, *it) for it in enumerate(program[thread])]

    with minted(yielding_keys()):
        threads = [start(partial(work, i)) for i in range(len(program))]
        history = [it for each in threads for it in each.result(PATIENCE)]
    assert_linearizable(history, CONTENTS, store)


def check_dense_programs(make_lock: LockMaker) -> None:
    """Four threads do four operations each, on two keys, 100 times."""
    draw = random.Random(0)
    for _ in range(100):
        program = [
            [
                Step(draw.choice([*OPERATIONS]), draw.randrange(2))
                for _ in range(4)
            ]
            for _ in range(4)
        ]
        check(program, make_lock)


@pytest.mark.parametrize('lock', LOCKS)
def test_dense_programs_are_linearizable(lock: str) -> None:
    check_dense_programs(LOCKS[lock])


def test_dense_programs_without_a_lock_are_not() -> None:
    with pytest.raises(AssertionError, match='not linearizable'):
        check_dense_programs(NoLock)
