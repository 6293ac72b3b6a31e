"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction): it sees which objects the threads read and
write, bytecode by bytecode, but not what happens inside C. So the dict, and
what its lock consists of, are replaced by classes that it sees into, and so is
the sleep of threads that have to wait. Only these are shared, so the rest of
the source is hidden from it, which saves most of the schedules.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
import time
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from operator import call
from operator import methodcaller
from types import ModuleType
from typing import Any

import frontrun

from proxystore_local import connector
from proxystore_local import guarded
from proxystore_local import LocalKey
from proxystore_local import registry
from proxystore_local.guarded import DictGuard
from tests.support.linearizability import Call
from tests.support.linearizability import describe
from tests.support.linearizability import linearize
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import Program
from tests.support.operations import show
from tests.support.operations import Step
from tests.support.programs import look

# Seconds that one schedule may take. All take milliseconds.
RUN_PATIENCE = 20.0

# How often a thread may sleep without a cause to wake up. A reader that sleeps
# so often opens the dict that a writer has left closed.
FREE_SLEEPS = 3

# How often a thread sleeps at most once it is alone: a reader opens the dict.
LAST_SLEEPS = 3


def unseen(
    module: ModuleType,
    method: str = '',
    *changes: tuple[str, str],
) -> Any:
    """Run a module again, as code that frontrun does not see into.

    It may take the turn from a thread wherever code that it sees uses an
    attribute, a global name or an item, be it shared or not. With a bound it
    tries nearly all of these places, one after the other.

    Args:
        module: Module to run.
        method: A method, or a part of its source that is there once.
        changes: What to replace in that part, and by what.

    Returns:
        The module that came of it.
    """
    source = inspect.getsource(module)
    if method:
        assert source.count(method) == 1
        changed = method
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new)
        source = source.replace(method, changed)
    made = ModuleType(module.__name__)
    exec(compile(source, '<frozen>', 'exec'), vars(made))
    return made


# The turn can be taken where the methods below use an attribute, which is one
# step. The rest of it is done by partials, which frontrun does not see into.
# These are defaults, as global names would be places to take the turn, too.
EXTEND = partial(list.extend)
DELETE = partial(list.__delitem__)
COUNT = partial(len)
SET_DEFAULT = partial(dict.setdefault)
REMOVE_DEAD = partial(_remove_dead_weakref)


class SteppedDict:
    """A dict in Python that frontrun sees into, and that detects intruders."""

    def __init__(self) -> None:
        self.inner = dict(CONTENTS)
        self.used = False
        # How often a writer has come or gone. It is odd while one is inside.
        version = [0]
        self.hidden = (
            partial(version.__getitem__, 0),
            partial(version.__setitem__, 0),
        )

    def read(self, operation: Callable[[], object]) -> Any:
        version, _ = self.hidden
        self.used  # noqa: B018
        before = version()
        found = operation()
        self.used  # noqa: B018
        assert version() == before, 'a writer came while a reader was inside'
        assert not before % 2, 'a reader met a writer'
        return found

    def write(self, operation: Callable[[], object]) -> None:
        version, set_version = self.hidden
        self.used = True
        before = version()
        assert not before % 2, 'a writer met a writer'
        set_version(before + 1)
        operation()
        self.used = False
        assert version() == before + 1, 'a writer came while one was inside'
        set_version(before + 2)

    def __contains__(self, key: object) -> Any:
        return self.read(partial(self.inner.__contains__, key))

    def __getitem__(self, key: LocalKey) -> Any:
        return self.read(partial(self.inner.__getitem__, key))

    def get(self, key: LocalKey) -> Any:
        return self.read(partial(self.inner.get, key))

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        self.write(partial(self.inner.__setitem__, key, value))

    def __delitem__(self, key: LocalKey) -> None:
        self.write(partial(self.inner.__delitem__, key))

    def pop(self, key: LocalKey, default: None) -> None:
        self.write(partial(self.inner.pop, key, default))

    def update(self, other: dict[LocalKey, bytes]) -> None:
        self.write(partial(self.inner.update, other))

    def __len__(self) -> Any:
        return self.read(partial(len, self.inner))

    # What {}.update(self), which takes a snapshot, begins with.
    def keys(self) -> Any:
        return self.read(partial(list, self.inner))


class SteppedList(list[None]):
    """A list of the lock, each use of which is one step."""

    used: object = None

    def __iadd__(  # type: ignore[misc]
        self,
        items: Any,
        extend: Any = EXTEND,
    ) -> Any:
        self.used = items
        extend(self, items)
        return self

    def __delitem__(
        self,
        index: Any,
        delete: Any = DELETE,
    ) -> None:
        self.used = index
        delete(self, index)

    def __bool__(self, count: Any = COUNT) -> bool:
        self.used  # noqa: B018
        return bool(count(self))


def sleep(pause: float) -> None:
    """Sleep as the thread's Sleeper does, in place of time.sleep()."""
    own_sleeper().sleep()


def stepped_guard(*changes: tuple[str, str], method: str = '') -> Any:
    """Make GuardedDict, each step of whose lock frontrun sees.

    This is the one place that uses the private names of the guard.

    Args:
        changes: Changes of its source, see `unseen()`.
        method: Where these are.

    Returns:
        A subclass.
    """
    module = unseen(guarded, method, *changes)
    module.sleep = sleep

    class SteppedGuard(module.GuardedDict):  # type: ignore[misc,name-defined]
        @property
        def _closed(self) -> bool:
            return self.closed

        @_closed.setter
        def _closed(self, value: bool) -> None:
            self.closed = value

        def renew(self) -> None:
            super().renew()
            self._gate: Any = SteppedList(self._gate)
            self._readers: Any = SteppedList(self._readers)
            # Slots, so that frontrun would not find them; see Execution.
            self.reachable = self._gate, self._readers

    return SteppedGuard


def keyed_connector() -> Any:
    """Make LocalConnector, whose puts store at known keys."""
    module = unseen(connector)
    module.mint = partial(KEYS.__getitem__, 0)
    module.mint_batch = partial(lambda count: KEYS[:count])
    return module.LocalConnector


class Sleeper:
    """How a thread sleeps, in a schedule that must have an end.

    Its operation may wake up without a cause, but not for ever. Later it waits
    until every other thread has ended or waits like that, too. Then it has to
    go on: nobody is there who could hold it up.

    Args:
        thread: Its number.
        busy: For each thread a lock that it holds until it ends.
    """

    def __init__(self, thread: int, busy: list[Any]) -> None:
        self.own = busy[thread]
        self.busy = busy
        self.held: list[Any] = []
        self.sleeps = 0
        self.has_slept = False

    def start(self) -> None:
        """Start the thread."""
        self.own.acquire()
        self.held.append(self.own)

    def sleep(self) -> None:
        """Sleep, as the operation cannot go on."""
        self.has_slept = True
        self.sleeps += 1
        if self.sleeps == FREE_SLEEPS + 1:
            self.end()
            # All in the same order, so without a deadlock.
            for lock in self.busy:
                lock.acquire()
                self.held.append(lock)
        assert self.sleeps <= FREE_SLEEPS + 1 + LAST_SLEEPS, 'waits for ever'

    def end(self) -> None:
        """End the thread."""
        while self.held:
            self.held.pop().release()


def attempt(operation: Callable[[], object]) -> object:
    """Do an operation, and return what it returns or its error."""
    try:
        return operation()
    except (AssertionError, KeyError, IndexError) as error:
        return error


# Of each thread its Sleeper. A partial, which frontrun does not see into.
OWN = threading.local()
own_sleeper = partial(getattr, OWN, 'sleeper')


GUARD = stepped_guard()
CONNECTOR = keyed_connector()


class Execution:
    """One run of a program, and the history of it.

    What threads do around an operation is prepared before they start, and
    done by functions in C, which frontrun does not see into.

    frontrun knows an object again in another run if it can be reached from
    this one at the start, by attributes and items of lists and dicts.

    Args:
        program: What each thread does.
        make_guard: Makes the guard of the dict.
    """

    def __init__(
        self,
        program: Program,
        make_guard: Callable[[Any], DictGuard],
    ) -> None:
        self.store = SteppedDict()
        self.guard = make_guard(self.store)
        self.connectors = [
            CONNECTOR(include_data_in_config=True) for _ in range(2)
        ]
        for made in self.connectors:
            made._guard = self.guard
        self.clock = itertools.count()
        self.tick: Callable[[], int] = partial(next, self.clock)
        busy = [threading.Lock() for _ in program]
        self.sleepers = [Sleeper(i, busy) for i in range(len(program))]
        # Of each thread, the steps and values of its operations, and of each
        # that is over the start, the result and the end.
        self.steps = [
            [
                (step, b'%d.%d' % (thread, number))
                for number, step in enumerate(steps)
            ]
            for thread, steps in enumerate(program)
        ]
        self.records: list[list[tuple[int, Any, int]]] = [[] for _ in program]
        for thread in range(len(program)):
            setattr(self, f'work_{thread}', self.prepare(thread))

    def prepare(self, thread: int) -> Callable[[], object]:
        """Make what does the work of a thread, from functions in C."""
        operations: list[Any] = [
            partial(attempt, self.bind(step, value))
            for step, value in self.steps[thread]
        ]
        sleeper = self.sleepers[thread]
        starts: Any = map(call, [self.start] * len(operations))
        timed = zip(starts, map(call, operations), self.clock)
        tasks: list[Any] = [
            partial(setattr, OWN, 'sleeper', sleeper),
            sleeper.start,
            partial(self.records[thread].extend, timed),
            sleeper.end,
        ]
        return partial(deque, map(call, tasks), 0)

    def bind(self, step: Step, value: bytes) -> Callable[[], object]:
        """Make what does a step."""
        method = getattr(self.connectors[step.second], step.name)
        return partial(method, *step.arguments(value))

    def start(self) -> int:
        """Tell the time; the turn can be taken before."""
        return self.tick()

    @property
    def history(self) -> list[Call]:
        """All calls, and what a look at the dict finds after them."""
        calls = [
            Call(thread, step.name, step.arguments(value), result, start, end)
            for thread, records in enumerate(self.records)
            for (step, value), (start, result, end) in zip(
                self.steps[thread],
                records,
                strict=False,
            )
        ]
        return [*calls, look(self.store.inner, next(self.clock))]


@contextmanager
def no_other_turns() -> Iterator[None]:
    """Let the interpreter not take the turn from a thread.

    Else another thread may go on before one has done what frontrun saw it
    begin.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(RUN_PATIENCE)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)


@dataclass(frozen=True)
class Explored:
    """What came of an exploration.

    Attributes:
        schedules: How many schedules were run.
        late: Threads that had to wait in some schedule.
        failure: What the first one that failed did, or `None` if none did.
    """

    schedules: int
    late: frozenset[int]
    failure: str | None


def explore(
    program: Program,
    bound: int | None = None,
    *,
    make_guard: Callable[[Any], DictGuard] = GUARD,
    patience: float = 600,
) -> Explored:
    """Run a program under every schedule, until one fails.

    A schedule fails if its history is not linearizable, if an operation raises
    or if threads wait for each other for good.

    Args:
        program: What each thread does.
        bound: How often a schedule may take the turn from a thread that could
            go on; `None` is any number of times.
        make_guard: Makes the guard of the dict.
        patience: Seconds that it may take.

    Returns:
        How many schedules there were, and the first that failed.

    Raises:
        AssertionError: If it took longer, so that not all was explored.
    """
    last: list[Execution] = []
    late: set[int] = set()

    def setup() -> Execution:
        last[:] = [Execution(program, make_guard)]
        return last[0]

    def holds(execution: Execution) -> bool:
        late.update(
            thread
            for thread, sleeper in enumerate(execution.sleepers)
            if sleeper.has_slept
        )
        return linearize(execution.history, CONTENTS) is not None

    start = time.monotonic()
    with no_other_turns():
        result = frontrun.explore(
            setup,
            [methodcaller(f'work_{i}') for i in range(len(program))],
            holds,
            preemption_bound=bound,
            total_timeout=patience,
            timeout_per_run=RUN_PATIENCE,
            detect_io=False,
            reproduce_on_failure=0,
        )
    hangs = 'timed out' in (result.inconclusive_reason or '')
    if hangs or result.property_holds is False:
        failure = (
            f'{show(program)}: schedule {result.num_explored} fails.\n'
            f'{describe(last[0].history)}\n'
            f'{result.explanation or result.inconclusive_reason}'
        )
        return Explored(result.num_explored, frozenset(late), failure)
    assert result.property_holds, result.inconclusive_reason
    assert time.monotonic() - start < patience, (
        f'{show(program)}: {result.num_explored} schedules in {patience} s, '
        'and there are more'
    )
    return Explored(result.num_explored, frozenset(late), None)


class SteppedRegistry(dict[Any, Any]):
    """The registry's dict, each use of which is one step."""

    used: object = None

    def setdefault(  # type: ignore[override]
        self,
        key: object,
        entry: Any,
        setdefault: Any = SET_DEFAULT,
    ) -> Any:
        self.used = entry
        return setdefault(self, key, entry)

    @staticmethod
    def remove_dead(
        guards: Any,
        key: object,
        remove: Any = REMOVE_DEAD,
    ) -> None:
        guards.used = key
        remove(guards, key)


class FirstGuards:
    """Threads that ask for the guard of data that has none yet.

    The first thread drops its first one, so that the others may find a dead
    entry in the registry.
    """

    def __init__(self, module: Any, make_registry: Any, by_id: bool) -> None:
        self.guards = module._guards = make_registry()
        module._remove_dead_weakref = self.guards.remove_dead
        store: dict[Any, bytes] = {}
        self.found: list[object] = []
        self.guard: Any = partial(module.guard, store)
        if by_id:
            self.guard = lambda: module.guard({}, None, 'identifier')
        self.keep = partial(self.found.append)

    def drop_and_ask(self) -> None:
        guard, keep = self.guard, self.keep
        guard()
        keep(guard())

    def ask(self) -> None:
        guard, keep = self.guard, self.keep
        keep(guard())

    def share(self) -> bool:
        entries = {entry() for entry in self.guards.values()}
        return entries == {*self.found} == {self.found[0]}


def explore_first_guards(
    by_id: bool,
    make_registry: Any = SteppedRegistry,
) -> Explored:
    """Let threads ask for the guard of one dict under every schedule.

    Args:
        by_id: Ask by an identifier, and not by the dict.
        make_registry: Makes the registry's dict.

    Returns:
        How many schedules there were, and the first that failed.
    """
    with no_other_turns():
        result = frontrun.explore(
            partial(FirstGuards, unseen(registry), make_registry, by_id),
            [FirstGuards.drop_and_ask, FirstGuards.ask],
            FirstGuards.share,
            timeout_per_run=RUN_PATIENCE,
            detect_io=False,
            reproduce_on_failure=0,
        )
    failure = None if result.property_holds else str(result.explanation)
    return Explored(result.num_explored, frozenset(), failure)
