"""Small programs hold under every schedule that could make a difference.

Run under frontrun: `tox -e interleavings`. The name of a test says how often
a schedule may take the turn from a thread that could go on: without a bound,
or twice at most, say.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import pytest
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings

pytest.importorskip(
    'frontrun',
    reason='frontrun is not installed: tox -e interleavings runs this',
)

from proxystore_local.rwlocked import RWLockedDict
from proxystore_local.seqlocked import Seqlock
from tests.support.interleavings import Execution
from tests.support.interleavings import explore
from tests.support.interleavings import SteppedData
from tests.support.locks import HidesWritesThatAreOver
from tests.support.locks import HidesWritesUnderWay
from tests.support.locks import IsNotReleased
from tests.support.locks import LetsTwoWritersIn
from tests.support.locks import NoLock
from tests.support.operations import OPERATIONS
from tests.support.operations import Program
from tests.support.operations import programs as drawn_programs
from tests.support.operations import show
from tests.support.operations import Step

# A search that takes longer fails: not all was explored.
pytestmark = [pytest.mark.schedules, pytest.mark.timeout(600)]

# An operation for each way through the code; those that write come first.
WRITERS = ['put_batch', 'set', 'evict']
READERS = ['get', 'exists', 'get_batch', '__len__']


def once(name: str) -> list[Step]:
    return [Step(name)]


def on_all_keys(name: str) -> list[Step]:
    """Do an operation on each of the keys, one after the other."""
    if 'key' in OPERATIONS[name].takes:
        return [Step(name, 0), Step(name, 1)]
    return [Step(name)]


PAIRS = combinations_with_replacement(WRITERS + READERS, 2)
CONFLICTS = [[once(a), once(b)] for a, b in PAIRS if a in WRITERS]
READS = [
    [once(a), once(b)] for a, b in combinations_with_replacement(READERS, 2)
]
# Where one operation could see a part of another.
BESIDE_A_BATCH = [
    [once('put_batch'), on_all_keys(name)] for name in WRITERS + READERS
]
THREES = [
    [once('put_batch'), once('set'), once('get_batch')],
    [once('put_batch'), once('put_batch'), on_all_keys('get')],
]


def programs(them: list[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with programs, by which it is named."""
    return pytest.mark.parametrize('program', them, ids=map(show, them))


@programs(READS)
def test_two_readers_without_a_bound(program: Program) -> None:
    runs = explore(partial(Execution, program), 2)
    assert not any(thread.waits for run in runs for (thread,) in run.threads)


@programs(CONFLICTS)
def test_two_threads_bound_2(program: Program) -> None:
    runs = explore(partial(Execution, program), 2, 2)
    # What writes, and nothing else, is waited for.
    waiting = {t.number for run in runs for (t,) in run.threads if t.waits}
    assert waiting == ({0, 1} if program[1][0].name in WRITERS else {1})


@programs(BESIDE_A_BATCH)
def test_beside_a_batch_bound_1(program: Program) -> None:
    explore(partial(Execution, program), 2, 1)


@programs(THREES)
def test_three_threads_bound_1(program: Program) -> None:
    explore(partial(Execution, program), 3, 1)


# A failure shows the shrunk program, and what its threads did when.
@settings(max_examples=5, suppress_health_check=[*HealthCheck])
@given(drawn_programs())
def test_drawn_programs_bound_1(program: Program) -> None:
    explore(partial(Execution, program), len(program), 1)


# The tests of the tests: what an exploration finds.


def unguarded(store: Any, store_id: str) -> RWLockedDict:
    return RWLockedDict(store, store_id, NoLock())


@programs(BESIDE_A_BATCH)
def test_finds_what_goes_wrong_without_a_lock(program: Program) -> None:
    with pytest.raises(AssertionError):
        explore(partial(Execution, program, unguarded), 2, 2)


FOUND: dict[type[Seqlock], list[str]] = {
    LetsTwoWritersIn: WRITERS,
    HidesWritesUnderWay: READERS,
    HidesWritesThatAreOver: ['get_batch', '__len__'],
    IsNotReleased: WRITERS + READERS,
}


@pytest.mark.parametrize(
    ('fault', 'name'), [(it, name) for it in FOUND for name in FOUND[it]]
)
def test_finds_a_lock_that(fault: type[Seqlock], name: str) -> None:
    class Data(SteppedData):
        make_lock = fault

    program = [once('put_batch'), on_all_keys(name)]
    with pytest.raises(AssertionError):
        explore(partial(Execution, program, Data), 2, 2)
