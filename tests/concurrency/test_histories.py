"""Operations of threads that run freely are recorded, and linearizable."""

from __future__ import annotations

import random

import pytest
from hypothesis import given

from proxystore_local import LocalConnector
from tests.support.linearizability import assert_linearizable
from tests.support.locks import default
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS
from tests.support.operations import Program
from tests.support.operations import programs
from tests.support.operations import Step
from tests.support.programs import run_on_threads

pytestmark = pytest.mark.usefixtures('tiny_switch_interval')


def check(program: Program, make_lock: LockMaker = default) -> None:
    store = dict(CONTENTS)
    lock = make_lock()
    first = LocalConnector(store, include_data_in_config=True, lock=lock)
    second = LocalConnector(store, include_data_in_config=True)
    assert_linearizable(run_on_threads(program, [first, second]), CONTENTS)


def check_dense_programs(make_lock: LockMaker) -> None:
    """Four threads do four operations each, on two keys, 200 times."""
    for seed in range(200):
        draw = random.Random(seed)
        program = [
            [
                Step(
                    draw.choice([*OPERATIONS]),
                    draw.randrange(2),
                    draw.random() < 0.5,
                )
                for _ in range(4)
            ]
            for _ in range(4)
        ]
        check(program, make_lock)


@given(programs(most_steps=12))
def test_drawn_programs_are_linearizable(program: Program) -> None:
    for _ in range(3):
        check(program)


@pytest.mark.parametrize('lock', LOCKS)
def test_dense_programs_are_linearizable(lock: str) -> None:
    check_dense_programs(LOCKS[lock])


def test_dense_programs_without_a_lock_are_not() -> None:
    with pytest.raises(AssertionError, match='not linearizable'):
        check_dense_programs(NoLock)
