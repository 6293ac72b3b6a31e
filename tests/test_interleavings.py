"""Small programs hold under every schedule that could make a difference.

Run under frontrun: `tox -e interleavings`. The name of a test says how often
a schedule may take the turn from a thread that could go on: without a bound,
or twice at most, say.
"""

from __future__ import annotations

import inspect
import itertools
import textwrap
import threading
from collections import Counter
from functools import partial
from typing import Any
from typing import ClassVar

import pytest
from hypothesis import find
from hypothesis import given
from hypothesis import HealthCheck
from hypothesis import settings

pytest.importorskip(
    'frontrun',
    reason='frontrun is not installed: tox -e interleavings runs this',
)

from proxystore_local import locks
from tests.harness import NoLock
from tests.interleavings import explore
from tests.interleavings import RecyclingLock
from tests.programs import Program
from tests.programs import programs as drawn_programs
from tests.programs import READS
from tests.programs import show
from tests.programs import Step
from tests.programs import WRITES

# frontrun takes long, and has a time limit of its own.
pytestmark = pytest.mark.timeout(1200)

PAIRS = [
    [[Step(one)], [Step(other)]]
    for one, other in itertools.combinations_with_replacement(
        WRITES + READS,
        2,
    )
]
CONFLICTS = [
    pair
    for pair in PAIRS
    if pair[0][0].name in WRITES or pair[1][0].name in WRITES
]
# The same by two connectors on one dict, the first of which writes.
SECONDS = [
    [[Step(one)], [Step(other, second=True)]]
    for one in WRITES
    for other in WRITES + READS
]
# One thread writes two keys.
TRIPLES = [
    [[Step('put_batch')], [Step(one)], [Step(other)]]
    for one, other in itertools.combinations_with_replacement(
        WRITES + READS,
        2,
    )
]
# What a finalizer does inside an operation, beside another thread.
NESTED = [
    [[Step(outer, inside=Step(inner))], [Step(beside)]]
    for outer in ['get', 'set', 'put_batch']
    for inner in ['get_batch', 'put_batch']
    for beside in ['get_batch', 'put_batch']
]


def programs(them: list[Any]) -> pytest.MarkDecorator:
    """Parametrize a test with programs, by which it is named."""
    return pytest.mark.parametrize('program', them, ids=map(show, them))


def check(program: Program, bound: int | None, **options: Any) -> None:
    explored = explore(program, bound, **options)
    assert explored.failure is None, explored.failure
    print(f'{show(program)}: {explored.schedules} schedules')


@programs(PAIRS)
def test_two_new_threads_without_a_bound(program: Program) -> None:
    check(program, None)


@programs(PAIRS)
def test_two_threads_some_known_bound_2(program: Program) -> None:
    for known in [0], [1], [0, 1]:
        check(program, 2, known=known)


@programs(SECONDS)
def test_two_connectors_on_one_dict_bound_2(program: Program) -> None:
    check(program, 2)


@programs(TRIPLES)
def test_three_threads_bound_2(program: Program) -> None:
    check(program, 2)


@programs(NESTED)
def test_a_finalizer_inside_bound_2(program: Program) -> None:
    check(program, 2)


@pytest.mark.parametrize('after', ['get_batch', 'put_batch'])
def test_first_connectors_on_one_dict_bound_2(after: str) -> None:
    program = [[Step('connect'), Step('put_batch')], [Step('connect')]]
    program[1].append(Step(after))
    check(program, 2, connected=False)


@programs([CONFLICTS[-1], CONFLICTS[0]])
def test_readers_that_are_inhibited_bound_2(program: Program) -> None:
    """As when writers had to wait: readers wait at the gate."""

    class Inhibited(RecyclingLock):
        def __init__(self) -> None:
            super().__init__()
            self._hints.inhibited_until = 1.0

    check(program, 2, make_lock=Inhibited)


@programs([CONFLICTS[-1], CONFLICTS[0]])
def test_threads_that_back_off_bound_2(program: Program) -> None:
    """As on a free-threaded build, where they sleep and try again."""
    check(program, 2, _BACKOFF=(1.0,), _TRIES=1)


# Each takes seconds, so they are few. A failure shows the shrunk program, and
# what its threads did when.
FEW = settings(
    deadline=None,
    max_examples=20,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@FEW
@given(drawn_programs(most_steps=12))
def test_drawn_programs_bound_1(program: Program) -> None:
    check(program, 1)


# The tests of the tests: what an exploration meets, and what it finds.


class TellingLock(RecyclingLock):
    """Tells who read beside others, and who waited to write."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        # Hidden from frontrun, see Execution.
        self.tell = partial(self._tell)

    def _tell(self, what: str) -> None:
        self.seen[f'{threading.current_thread().name} {what}'] += 1

    def _shared_beside(self, operation: Any, argument: Any) -> Any:
        self.tell('is beside')
        return super()._shared_beside(operation, argument)

    def _wait_to_write(self) -> None:
        self.tell('waits')
        super()._wait_to_write()


@pytest.mark.parametrize(
    ('names', 'expected'),
    [
        (['get', 'get'], ['is beside', 'is beside']),
        (['set', 'get'], ['waits', 'is beside']),
        (['get', 'set'], ['is beside', 'waits']),
        (['set', 'set'], ['waits', 'waits']),
    ],
)
def test_each_thread_comes_late_in_some_schedule(
    names: list[str],
    expected: list[str],
) -> None:
    TellingLock.seen.clear()
    check([[Step(name)] for name in names], 2, make_lock=TellingLock)
    met = [f'dpor-{number} {what}' for number, what in enumerate(expected)]
    assert sorted(TellingLock.seen) == met


def test_shrinks_a_drawn_program_that_goes_wrong() -> None:
    program = find(
        drawn_programs(most_steps=5),
        lambda program: bool(explore(program, 1, make_lock=NoLock).failure),
        settings=FEW,
    )
    assert [len(steps) for steps in program] == [1, 1]
    failure = explore(program, 1, make_lock=NoLock).failure
    assert failure is not None
    assert failure.startswith(show(program))
    assert failure.count(' to ') >= 3


@programs(CONFLICTS)
def test_finds_what_goes_wrong_without_a_lock(program: Program) -> None:
    assert explore(program, 2, make_lock=NoLock).failure is not None


MUTANTS = {
    'the writer does not wait for readers': (
        'exclusive',
        'self._wait_for_readers()',
        'pass',
        'set | get',
    ),
    'the writer skips one reader': (
        '_wait_for_readers',
        'self._entered.copy().values()',
        'list(self._entered.copy().values())[1:]',
        'set | get',
    ),
    'the writer does not take the gate': (
        'exclusive',
        'if not self._acquire(False):',
        'if False:',
        'set | set',
    ),
    'the writer does not close the way past the gate': (
        'exclusive',
        'self._own = None',
        'pass',
        'set | get',
    ),
    'the reader does not look again once it has its lock': (
        '_shared_beside',
        'entered = self._own is own',
        'entered = True',
        'set | get',
    ),
    'the reader does not withdraw: it keeps its own lock': (
        '_shared_beside',
        'lock.release()\n            except RuntimeError as error:\n'
        '                _pass_on(error)\n                # An',
        'pass\n            except RuntimeError as error:\n'
        '                _pass_on(error)\n                # An',
        'get | set',
    ),
    'the reader that waited keeps the gate': (
        '_shared_beside',
        'self._release()\n                        except',
        'pass\n                        except',
        'set; set | get',
    ),
}


# Of three threads, with a turn taken from two of them.
MUTANTS_OF_THREE = {
    'the writer waits for the first reader only': (
        '_wait_for_readers',
        'self._entered.copy().values()',
        'list(self._entered.copy().values())[:1]',
        'put_batch | get | get',
    ),
}


def mutate(method: str, old: str, new: str) -> type[RecyclingLock]:
    """Make our lock with a fault in a method."""
    function = getattr(locks.BigReaderLock, method)
    lines, first = inspect.getsourcelines(function)
    source = textwrap.indent(textwrap.dedent(''.join(lines)), '    ')
    assert old in source
    # As if from the same place in the same file, which frontrun looks into.
    source = '\n' * (first - 2) + f'if True:\n{source.replace(old, new)}'
    members: dict[str, Any] = {}
    code = compile(source, locks.__file__, 'exec')
    exec(code, vars(locks), members)
    return type('Mutant', (RecyclingLock,), members)


def parse(names: str) -> Program:
    """Make a program from how it is shown."""
    return [
        [Step(name) for name in steps.split('; ')]
        for steps in names.split(' | ')
    ]


@pytest.mark.parametrize('name', MUTANTS)
def test_finds_what_is_wrong_with_a_mutant(name: str) -> None:
    *fault, names = MUTANTS[name]
    explored = explore(parse(names), 3, make_lock=mutate(*fault))
    assert explored.failure is not None
    print(f'{name}: found after {explored.schedules} schedules')


@pytest.mark.parametrize('name', MUTANTS_OF_THREE)
def test_finds_with_bound_2_what_bound_1_misses(name: str) -> None:
    *fault, names = MUTANTS_OF_THREE[name]
    mutant = mutate(*fault)
    assert explore(parse(names), 1, make_lock=mutant).failure is None
    explored = explore(parse(names), 2, make_lock=mutant)
    assert explored.failure is not None
    print(f'{name}: found after {explored.schedules} schedules')


@programs(
    [
        parse('put_batch | get_batch | get_batch'),
        parse('put_batch | set | get'),
    ],
)
def test_nothing_is_lost_where_no_turn_is_taken(program: Program) -> None:
    few = explore(program, 1)
    many = explore(program, 1, everywhere=True)
    for results, before in many.outcomes:
        # Or in a stricter order, so that the same would be wrong.
        assert any(
            results == same and before <= stricter
            for same, stricter in few.outcomes
        )
    assert few.schedules < many.schedules
    print(f'{few.schedules} schedules instead of {many.schedules}')
