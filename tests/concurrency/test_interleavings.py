"""Small programs hold under every schedule that could make a difference.

Run under frontrun: `tox -e interleavings`. The name of a test says how often
a schedule may take the turn from a thread that could go on: without a bound,
or twice at most, say.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import find
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings

pytest.importorskip(
    'frontrun',
    reason='frontrun is not installed: tox -e interleavings runs this',
)

from proxystore_local.guarded import GuardedDict
from proxystore_local.rwlocked import RWLockedDict
from tests.support.interleavings import explore
from tests.support.interleavings import explore_first_guards
from tests.support.interleavings import stepped_guard
from tests.support.interleavings import SteppedRegistry
from tests.support.locks import NoLock
from tests.support.operations import OPERATIONS
from tests.support.operations import Program
from tests.support.operations import programs as drawn_programs
from tests.support.operations import READS
from tests.support.operations import show
from tests.support.operations import Step
from tests.support.operations import WRITES

# frontrun takes long, and has a time limit of its own.
pytestmark = [pytest.mark.schedules, pytest.mark.timeout(1200)]

# The critical sections: methods of the guard, and operations that use them.
SECTIONS = {
    'get': 'get',
    'exists': 'exists',
    'set': 'set',
    'evict': 'evict',
    'shared': 'get_batch',
    'exclusive': 'put_batch',
}


def pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each two, in the order of the table: a write comes before a read."""
    listed = [name for name in OPERATIONS if name in {*names}]
    return itertools.combinations_with_replacement(listed, 2)


# The second thread uses a second connector on the same dict.
PAIRS = [
    [[Step(one)], [Step(other, second=True)]]
    for one, other in pairs(OPERATIONS)
]
READERS = [pair for pair in PAIRS if pair[0][0].name in READS]
CONFLICTS = [pair for pair in PAIRS if pair[0][0].name in WRITES]
SECTION_CONFLICTS = [
    pair
    for pair in CONFLICTS
    if {step.name for (step,) in pair} <= {*SECTIONS.values()}
]
# One thread writes two keys.
TRIPLES = [
    [[Step('put_batch')], [Step(one)], [Step(other)]]
    for one, other in pairs(SECTIONS.values())
]


def programs(them: list[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with programs, by which it is named."""
    return pytest.mark.parametrize('program', them, ids=map(show, them))


def check(program: Program, bound: int | None, late: set[int]) -> None:
    explored = explore(program, bound)
    assert explored.failure is None, explored.failure
    assert explored.late >= late
    print(f'{show(program)}: {explored.schedules} schedules')


@programs(READERS)
def test_two_readers_without_a_bound(program: Program) -> None:
    check(program, None, set())


@programs(CONFLICTS)
def test_two_threads_one_of_which_waits_bound_1(program: Program) -> None:
    check(program, 1, {1})


@programs(SECTION_CONFLICTS)
def test_two_threads_each_of_which_waits_bound_2(program: Program) -> None:
    check(program, 2, {0, 1})


@programs(TRIPLES)
def test_three_threads_bound_1(program: Program) -> None:
    check(program, 1, set())


# Each takes seconds, so they are few. A failure shows the shrunk program, and
# what its threads did when.
FEW = settings(
    deadline=None,
    max_examples=6,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@FEW
@given(drawn_programs(most_steps=12))
def test_drawn_programs_bound_1(program: Program) -> None:
    check(program, 1, set())


@pytest.mark.parametrize('by_id', [False, True])
def test_first_guards_of_one_dict_without_a_bound(by_id: bool) -> None:
    explored = explore_first_guards(by_id)
    assert explored.failure is None, explored.failure
    print(f'{explored.schedules} schedules')


# The tests of the tests: what an exploration finds.


def unguarded(store: Any) -> RWLockedDict:
    return RWLockedDict(store, NoLock())


@programs(CONFLICTS)
def test_finds_what_goes_wrong_without_a_lock(program: Program) -> None:
    assert explore(program, 2, make_guard=unguarded).failure is not None


@pytest.mark.parametrize('by_id', [False, True])
def test_finds_first_guards_of_one_dict_that_are_not_one(by_id: bool) -> None:
    class Overwritten(SteppedRegistry):
        def setdefault(self, key: object, entry: Any, *_: object) -> Any:  # type: ignore[override]
            found = super().setdefault(key, entry)
            if found() is not None:
                self[key] = entry
            return entry

    assert explore_first_guards(by_id, Overwritten).failure is not None


def test_shrinks_a_drawn_program_that_goes_wrong() -> None:
    program = find(
        drawn_programs(most_steps=5),
        lambda program: bool(
            explore(program, 1, make_guard=unguarded).failure
        ),
        settings=FEW,
    )
    assert [len(steps) for steps in program] == [1, 1]
    failure = explore(program, 1, make_guard=unguarded).failure
    assert failure is not None
    assert failure.startswith(show(program))
    assert failure.count(' to ') >= 3


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
    (method, name, changes)
    for methods, mutants in [
        (('get', 'exists', 'shared'), READER_MUTANTS),
        (('set', 'evict', 'exclusive'), WRITER_MUTANTS),
        (('shared',), OPENER_MUTANTS),
    ]
    for method in methods
    for name, changes in mutants.items()
]


@pytest.mark.parametrize(
    ('method', 'name', 'changes'),
    MUTANTS,
    ids=[f'{method}: {name}' for method, name, _ in MUTANTS],
)
def test_finds_what_is_wrong_with_a_mutant(
    method: str,
    name: str,
    changes: list[tuple[str, str]],
) -> None:
    source = inspect.getsource(getattr(GuardedDict, method))
    mutant = stepped_guard(*changes, method=source)
    for beside in 'put_batch', 'get_batch':
        program = [[Step(SECTIONS[method])], [Step(beside)]]
        explored = explore(program, 2, make_guard=mutant)
        if explored.failure:
            print(f'found after {explored.schedules} schedules')
            return
    pytest.fail('not found')
