"""Small programs hold under every schedule that could make a difference.

Run under frontrun: `tox -e interleavings`. The name of a test says how often
a schedule may take the turn from a thread that could go on: without a bound,
or twice at most, say.
"""

from __future__ import annotations

import inspect
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

from proxystore_local import guarded
from proxystore_local.guarded import GuardedDict
from proxystore_local.rwlocked import RWLockedDict
from tests.support.interleavings import Execution
from tests.support.interleavings import explore
from tests.support.interleavings import FirstGuards
from tests.support.interleavings import stepped_guard
from tests.support.interleavings import SteppedRegistry
from tests.support.locks import NoLock
from tests.support.operations import OPERATIONS
from tests.support.operations import Program
from tests.support.operations import programs as drawn_programs
from tests.support.operations import READS
from tests.support.operations import show
from tests.support.operations import Step

# A search that takes longer fails: not all was explored.
pytestmark = [pytest.mark.schedules, pytest.mark.timeout(600)]

# The critical sections: methods of the guard, and operations that use them.
SECTIONS = {
    'exclusive': 'put_batch',
    'set': 'set',
    'evict': 'evict',
    'get': 'get',
    'exists': 'exists',
    'get_batch': 'get_batch',
    'shared': '__len__',
}

# A write comes before a read.
PAIRS = [
    [[Step(one)], [Step(other)]]
    for one, other in combinations_with_replacement(OPERATIONS, 2)
]
READERS = [pair for pair in PAIRS if pair[0][0].name in READS]
CONFLICTS = [pair for pair in PAIRS if pair not in READERS]
# One thread writes two keys.
TRIPLES = [
    [[Step('put_batch')], [Step(one)], [Step(other)]]
    for one, other in combinations_with_replacement(SECTIONS.values(), 2)
]


def programs(them: list[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with programs, by which it is named."""
    return pytest.mark.parametrize('program', them, ids=map(show, them))


@programs(READERS)
def test_two_readers_without_a_bound(program: Program) -> None:
    explore(partial(Execution, program), 2)


@programs(CONFLICTS)
def test_two_threads_each_of_which_waits_bound_2(program: Program) -> None:
    runs = explore(partial(Execution, program), 2, 2)
    assert {thread for run in runs for thread in run.guard.waits} == {0, 1}


@programs(TRIPLES)
def test_three_threads_bound_1(program: Program) -> None:
    explore(partial(Execution, program), 3, 1)


def test_two_writers_and_a_reader_bound_2() -> None:
    # With fewer, a writer that opens the dict after it has left is not found.
    program = [[Step('put_batch')], [Step('set')], [Step('get')]]
    explore(partial(Execution, program), 3, 2)


# A failure shows the shrunk program, and what its threads did when.
@settings(max_examples=10, suppress_health_check=[*HealthCheck])
@given(drawn_programs())
def test_drawn_programs_bound_1(program: Program) -> None:
    explore(partial(Execution, program), len(program), 1)


@pytest.mark.parametrize('by_id', [False, True])
def test_first_guards_of_one_dict_are_one(by_id: bool) -> None:
    explore(partial(FirstGuards, by_id), 2)


# The tests of the tests: what an exploration finds.


def unguarded(store: Any) -> RWLockedDict:
    return RWLockedDict(store, NoLock())


@programs(CONFLICTS)
def test_finds_what_goes_wrong_without_a_lock(program: Program) -> None:
    with pytest.raises(AssertionError):
        explore(partial(Execution, program, unguarded), 2, 2)


@pytest.mark.parametrize('by_id', [False, True])
def test_finds_first_guards_of_one_dict_that_are_not_one(by_id: bool) -> None:
    class TwoSteps(SteppedRegistry):
        def setdefault(self, key: object, entry: Any) -> Any:  # type: ignore[override]
            self.read_step()
            if key not in self:
                self.write_step()
                self[key] = entry
            return self.get(key, entry)

    with pytest.raises(AssertionError):
        explore(partial(FirstGuards, by_id, TwoSteps), 2)


# What can be wrong with a reader, in each of the critical sections.
READER_MUTANTS = {
    'does not look if the dict is closed': [
        ('if not self._closed', 'if True')
    ],
    'does not count itself': [
        ('readers += (None,)', 'pass'),
        ('del readers[0]', 'pass'),
    ],
    'counts itself for ever': [('del readers[0]', 'pass')],
}
# And with a writer.
WRITER_MUTANTS = {
    'does not close the dict': [('self._closed = True', 'pass')],
    'does not take the gate': [('del gate[1]', 'pass')],
    'does not look for readers': [('if not readers', 'if True')],
    'leaves the gate taken': [('gate += (None,)', 'pass')],
}
# And with a reader that opens the dict after a pause.
OPENER_MUTANTS = {
    'opens without the gate': [
        ('del gate[1]', 'pass'),
        ('gate += (None,)', 'pass'),
    ],
    'leaves the gate taken': [('gate += (None,)', 'pass')],
    'does not open': [('self._closed = False', 'pass')],
}
MUTANTS = [
    pytest.param(method, beside, changes, id=f'{method}: {name}')
    for methods, beside, mutants in [
        (
            ('get', 'exists', 'get_batch', 'shared'),
            'put_batch',
            READER_MUTANTS,
        ),
        (('set', 'evict', 'exclusive'), 'get_batch', WRITER_MUTANTS),
        (('shared',), 'put_batch', OPENER_MUTANTS),
    ]
    for method in methods
    for name, changes in mutants.items()
]


@pytest.mark.parametrize(('method', 'beside', 'changes'), MUTANTS)
def test_finds_what_is_wrong_with_a_mutant(
    method: str,
    beside: str,
    changes: list[tuple[str, str]],
) -> None:
    original = mutant = inspect.getsource(getattr(GuardedDict, method))
    for old, new in changes:
        assert old in mutant
        mutant = mutant.replace(old, new)
    guard = stepped_guard(
        inspect.getsource(guarded).replace(original, mutant),
    )
    program = [[Step(SECTIONS[method])], [Step(beside)]]
    with pytest.raises(AssertionError) as caught:
        explore(partial(Execution, program, guard), 2, 2)
    print(caught.value)
