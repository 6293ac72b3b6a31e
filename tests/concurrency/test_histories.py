"""Operations of threads that run freely are recorded, and linearizable."""

from __future__ import annotations

import random
import threading
from functools import partial
from time import sleep

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.linearizability import record
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import OPERATIONS
from tests.support.scenes import hooked
from tests.support.scenes import minted
from tests.support.scenes import start

pytestmark = pytest.mark.usefixtures('tiny_switch_interval')


def yielding_keys() -> list[LocalKey]:
    """Make KEYS anew; where one is compared, a thread offers its turn."""
    return [hooked(key, partial(sleep, 0)) for key in KEYS]


def check(program: list[list[str]], make_lock: LockMaker) -> None:
    """Run a program, on threads that start at once."""
    store = dict(CONTENTS)
    lock = make_lock()
    barrier = threading.Barrier(len(program))

    def work(thread: int) -> list[Call]:
        connector = LocalConnector(
            store, include_data_in_config=True, lock=lock
        )
        barrier.wait(PATIENCE)
        return record(connector, thread, program[thread], yielding_keys)

    with minted(yielding_keys()):
        threads = [start(partial(work, i)) for i in range(len(program))]
        history = [it for each in threads for it in each.result(PATIENCE)]
    assert_linearizable(history, CONTENTS, store)


def check_random_programs(make_lock: LockMaker) -> None:
    """Four threads do four operations each, on two keys, 100 times."""
    draw = random.Random(0)
    for _ in range(100):
        program = [draw.choices([*OPERATIONS], k=4) for _ in range(4)]
        check(program, make_lock)


@pytest.mark.parametrize('lock', LOCKS)
def test_histories_are_linearizable(lock: str) -> None:
    check_random_programs(LOCKS[lock])


def test_histories_without_a_lock_are_not() -> None:
    with pytest.raises(AssertionError, match='not linearizable'):
        check_random_programs(NoLock)
