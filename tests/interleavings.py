"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction): it sees which objects the threads read and
write, bytecode by bytecode, and which locks they take. What it cannot see is
inside C. So the connector gets a dict whose operations are written in Python,
in steps, and which tells when somebody is inside who should not be.
"""

from __future__ import annotations

import dis
import inspect
import itertools
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from functools import partial
from operator import call
from operator import methodcaller
from types import CodeType
from types import ModuleType
from types import SimpleNamespace
from typing import Any
from typing import TypeAlias
from unittest import mock

import frontrun
from frontrun import _opcode_observer
from frontrun._cooperative import get_context

from proxystore_local import BigReaderLock
from proxystore_local import connector
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import locks
from proxystore_local.locks import ReaderWriterLock
from tests.linearizability import Call
from tests.linearizability import describe
from tests.linearizability import linearize
from tests.programs import CONTENTS
from tests.programs import do
from tests.programs import known_keys
from tests.programs import look
from tests.programs import Program
from tests.programs import show
from tests.programs import Step

# Seconds that one schedule may take. All take milliseconds.
RUN_PATIENCE = 20.0

# How many dicts and locks an execution has in store for its lock to make.
SPARE = 8


class SteppedDict(dict[LocalKey, bytes]):
    """A dict in Python that frontrun sees into, and that detects intruders.

    It stores in another dict, one key at a step. Who comes while another
    thread writes fails, and who reads while another thread writes gets
    nonsense.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inner = dict(CONTENTS)
        # Bound once, so that nobody but these calls is seen to use it.
        self.inner_contains = self.inner.__contains__
        self.inner_copy = self.inner.copy
        self.inner_get = self.inner.get
        self.inner_pop = self.inner.pop
        self.inner_set = self.inner.__setitem__
        # Who writes, and who has written.
        self.writers: tuple[int | None, tuple[int, ...]] = (None, ())
        # Does what finalizers do inside an operation.
        self.finalize: Callable[[], object] | None = None

    def begin_write(self) -> int | None:
        me = number()
        outer, written = self.writers
        assert outer in (None, me), 'a writer met a writer'
        self.writers = (me, written)
        if self.finalize:
            self.finalize()
        return outer

    def end_write(self, outer: int | None) -> None:
        me = number()
        writer, written = self.writers
        assert writer == me, 'a writer came while another was inside'
        self.writers = (outer, (*written, me))

    def read(self, operation: Callable[[Any], object], key: Any) -> Any:
        writer, before = self.writers
        assert writer in (None, number()), 'a reader met a writer'
        found = operation(key)
        if self.finalize:
            self.finalize()
        _, after = self.writers
        if after == before or {*after[len(before) :]} == {number()}:
            return found
        # Not an error: it may be known, so that the read runs again.
        return 'a writer came while a reader was inside'

    def __contains__(self, key: object) -> Any:
        return self.read(self.inner_contains, key)

    # dict(self), which takes a snapshot, goes through these three.
    def keys(self) -> Any:
        return self.inner_copy().keys()

    def __iter__(self) -> Iterator[LocalKey]:
        return iter(self.keys())

    def __getitem__(self, key: LocalKey) -> bytes:
        value: bytes = self.get(key, b'gone')
        return value

    def get(self, key: LocalKey, default: Any = None) -> Any:
        value = self.read(self.inner_get, key)
        return default if value is None else value

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        outer = self.begin_write()
        self.inner_set(key, value)
        self.end_write(outer)

    def update(self, other: dict[LocalKey, bytes]) -> None:  # type: ignore[override]
        outer = self.begin_write()
        for key, value in other.items():
            self.inner_set(key, value)
        self.end_write(outer)

    def pop(self, key: LocalKey, *default: Any) -> Any:
        outer = self.begin_write()
        value = self.inner_pop(key, *default)
        self.end_write(outer)
        return value


class VisibleLock:
    """A lock that frontrun sees somebody is about to take.

    Two threads that take a lock do not conflict by that alone in frontrun
    0.7: it would never let the second one go first. They do by writing to an
    attribute of the lock before.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.taker = 0
        self.take = self.lock.acquire

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        take = self.take
        self.taker = 1
        return take(blocking, timeout)

    def release(self) -> None:
        self.lock.release()


def attempt(operation: Callable[[], object]) -> object:
    """Do an operation, and return what it returns or its error."""
    try:
        return operation()
    except (AssertionError, KeyError) as error:
        return error


# What each thread has for its own: its number in the program, instead of its
# identity, and what makes its locks.
OWN = threading.local()
number = partial(getattr, OWN, 'number', None)


class Execution:
    """One run of a program, and the history of it.

    frontrun may take the turn from a thread wherever our code uses an
    attribute, a global name or an item, be it shared or not. The fewer such
    places, the fewer schedules. So what threads do around an operation is
    prepared before they start, and done by functions in C, which frontrun
    does not see into.

    frontrun knows an object again in another run if it can be reached from
    this one at the start, by attributes and items of lists and dicts. So what
    our lock makes as it goes on, it gets from the spare ones here.

    Args:
        program: What each thread does.
        make_lock: Makes the connector's lock.
        known: Threads that have passed the gate before, so that each has its
            own lock already.
        connected: There is a connector before the program starts. Else each
            thread makes its own.
    """

    def __init__(
        self,
        program: Program,
        make_lock: Callable[[], ReaderWriterLock],
        known: Collection[int],
        connected: bool,
    ) -> None:
        self.store = SteppedDict()
        registry_lock = RecyclingLock()
        self.locks: list[Any] = [make_lock(), registry_lock]
        locks._registry_lock = registry_lock
        self.spare_locks = [
            [VisibleLock() for _ in range(SPARE)] for _ in program
        ]
        for thread in known:
            self.locks[0]._entered[thread] = VisibleLock()
        self.connectors: list[list[LocalConnector]] = [[] for _ in program]
        if connected:
            connectors = [
                LocalConnector(
                    self.store,
                    include_data_in_config=True,
                    lock=lock,
                )
                for lock in (self.locks[0], None)
            ]
            self.connectors = [connectors for _ in program]
        self.clock = itertools.count()
        self.ticks: list[Callable[[], int]] = [partial(next, self.clock)]
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
        # Called as partials, since threads do not share what is in them.
        finalizers: dict[int, Callable[[], object]] = {}
        self.set_finalizer = partial(finalizers.__setitem__)
        self.pop_finalizer = partial(finalizers.pop)
        self.inside: list[Call] = []
        if any(step.inside for steps in program for step in steps):
            self.store.finalize = self.finalize
        for thread in range(len(program)):
            setattr(self, f'work_{thread}', self.prepare(thread))

    def prepare(self, thread: int) -> Callable[[], object]:
        """Make what does the work of a thread, from functions in C."""
        operations = [
            partial(attempt, self.bind(thread, step, value))
            for step, value in self.steps[thread]
        ]
        starts = map(call, [self.start] * len(operations))
        timed = zip(starts, map(call, operations), self.clock)
        make_rlock = partial(next, iter(self.spare_locks[thread]))
        tasks = [
            partial(setattr, OWN, 'number', thread),
            partial(setattr, OWN, 'make_rlock', make_rlock),
            partial(self.records[thread].extend, timed),
        ]
        return partial(deque, map(call, tasks), 0)

    def bind(
        self,
        thread: int,
        step: Step,
        value: bytes,
    ) -> Callable[[], object]:
        """Make what does a step of a thread, and no more if that can be."""
        connectors = self.connectors[thread]
        if step.name == 'connect':
            return partial(self.connect, thread)
        if not connectors or step.inside is not None:
            return partial(self.do, thread, step, value)
        method = getattr(connectors[step.second], step.name)
        return partial(method, *step.arguments(value))

    def start(self) -> int:
        """Tell the time, for an operation that starts.

        The turn can be taken just before, as an item is used.
        """
        return self.ticks[0]()

    def connect(self, thread: int) -> None:
        """Make the connector that a thread goes on with."""
        made = LocalConnector(self.store, include_data_in_config=True)
        self.connectors[thread].extend([made] * 2)

    def do(self, thread: int, step: Step, value: bytes) -> object:
        """Do a step of a thread."""
        if step.inside is not None:
            self.set_finalizer(
                number(),
                partial(
                    self.do_inside,
                    thread,
                    step.inside,
                    value + b'.inside',
                ),
            )
        target = self.connectors[thread][step.second]
        result: object = getattr(target, step.name)(*step.arguments(value))
        return result

    def do_inside(self, thread: int, step: Step, value: bytes) -> None:
        """Do what a finalizer does, and record it."""
        target = self.connectors[thread][step.second]
        record = partial(self.inside.append)
        record(do(thread, target, step, value, self.start))

    def finalize(self) -> None:
        """Do what a finalizer does inside an operation of a thread, once."""
        self.pop_finalizer(number(), bool)()

    def make_rlock(self) -> Any:
        """Make a lock, in place of threading.RLock()."""
        return OWN.make_rlock()

    @property
    def history(self) -> list[Call]:
        """All calls, and what a look at the dict finds after them."""
        calls = [
            Call(
                thread,
                step.name,
                step.arguments(value),
                result,
                start,
                end,
            )
            for thread, records in enumerate(self.records)
            for (step, value), (start, result, end) in zip(
                self.steps[thread],
                records,
                strict=False,
            )
        ]
        found = look(self.store.inner, next(self.clock))
        return [*calls, *self.inside, found]


# A partial, so that frontrun does not see a second access.
set_attribute = partial(object.__setattr__)


class RecyclingLock(BigReaderLock):
    """Our lock, that takes the dicts it makes from spare ones."""

    def __init__(self) -> None:
        self.spare: list[dict[int, Any]] = [{} for _ in range(SPARE)]
        self.recycle = partial(next, iter(self.spare))
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == '_entered':
            assert value == {}
            value = self.recycle()
        set_attribute(self, name, value)


def stored_names(module: ModuleType) -> set[str]:
    """Find what functions of a module store to, but for `__init__`.

    Args:
        module: Module to look into.

    Returns:
        Names of attributes and of global variables.
    """
    names: set[str] = set()
    codes = [compile(inspect.getsource(module), module.__name__, 'exec')]
    while codes:
        code = codes.pop()
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]
        if code.co_name not in ('<module>', '__init__'):
            names |= {
                instruction.argval
                for instruction in dis.get_instructions(code)
                if instruction.opname
                in ('STORE_ATTR', 'DELETE_ATTR', 'STORE_GLOBAL')
            }
    return names


@contextmanager
def turns_where_it_matters() -> Iterator[None]:
    """Let frontrun take the turn only where threads can conflict.

    By itself it may take it before each use of an attribute, of a global name
    or of a method in C. With a bound it tries nearly all of these places, one
    after the other. But it is the same to take the turn before something that
    conflicts with nobody or right after it. So it is not taken before names
    that are read and that no function writes, nor before a call on an object
    that cannot be reached from the program's state, such as a list that a
    thread has just made.
    """
    # The turn is also taken before a lock is released, and before the dict
    # becomes an argument.
    written = {'release', '_store'}.union(
        *map(stored_names, [connector, locks, sys.modules[__name__]]),
    )
    # Kept from one schedule to the next, which saves a third of the time.
    instructions = cache(_opcode_observer._get_instructions)
    is_shared = _opcode_observer._is_shared_opcode
    might_report = _opcode_observer._call_might_report_access

    def is_place(code: CodeType, offset: int) -> bool:
        if not is_shared(code, offset):
            return False
        instruction = instructions(code)[offset]
        return (
            instruction.opname not in ('LOAD_ATTR', 'LOAD_GLOBAL')
            or instruction.argval in written
        )

    def is_call_place(shadow: _opcode_observer.ShadowStack, argc: int) -> bool:
        context = get_context()
        if context is None or not might_report(shadow, argc):
            return False
        is_reachable = context[0]._stable_ids.is_preregistered
        return any(
            is_reachable(item) or is_reachable(getattr(item, '__self__', None))
            for item in shadow.stack[-argc - 3 :]
            if item is not None
        )

    with mock.patch.multiple(
        _opcode_observer,
        _get_instructions=instructions,
        _is_shared_opcode=is_place,
        _call_might_report_access=is_call_place,
    ):
        yield


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


# The results of all operations, and which were over before which began.
Outcome: TypeAlias = tuple[str, frozenset[tuple[int, int]]]


@dataclass(frozen=True)
class Explored:
    """What came of an exploration.

    Attributes:
        schedules: How many schedules were run.
        outcomes: What came of them, each once.
        failure: What the first one that failed did, or `None` if none did.
    """

    schedules: int
    outcomes: frozenset[Outcome]
    failure: str | None


def outcome(history: list[Call]) -> Outcome:
    """Tell what can be known of a history without a clock."""
    calls = sorted(history, key=lambda call: (call.thread, call.start))
    before = frozenset(
        (one, other)
        for one, other in itertools.permutations(range(len(calls)), 2)
        if calls[one].end < calls[other].start
    )
    return repr([call.result for call in calls]), before


def explore(
    program: Program,
    bound: int | None = None,
    *,
    make_lock: Callable[[], ReaderWriterLock] = RecyclingLock,
    known: Collection[int] = (),
    connected: bool = True,
    everywhere: bool = False,
    patience: float = 600,
    **changed: Any,
) -> Explored:
    """Run a program under every schedule, until one fails.

    Puts store at known keys meanwhile.

    A schedule fails if its history is not linearizable, if an operation raises
    or if threads wait for each other for good.

    Args:
        program: What each thread does.
        bound: How often a schedule may take the turn from a thread that could
            go on; `None` is any number of times.
        make_lock: Makes the connector's lock.
        known: Threads that have passed the gate of the lock before.
        connected: There is a connector before the program starts.
        everywhere: The turn is also taken where it does not matter. So it is,
            too, if the program makes connectors, as those are written then.
        patience: Seconds that it may take.
        changed: Names in `proxystore_local.locks`, and what to set them to.

    Returns:
        How many schedules there were, and the first that failed.

    Raises:
        AssertionError: If it took longer, so that not all was explored.
    """
    last: list[Execution] = []
    outcomes: set[Outcome] = set()

    def setup() -> Execution:
        visible.RLock = VisibleLock
        last[:] = [Execution(program, make_lock, known, connected)]
        visible.RLock = last[0].make_rlock
        return last[0]

    def worker(thread: int) -> Callable[[Execution], object]:
        # In C.
        return methodcaller(f'work_{thread}')

    def holds(execution: Execution) -> bool:
        history = execution.history
        outcomes.add(outcome(history))
        return linearize(history, CONTENTS) is not None

    # Time stands still, as the outcome must depend on the schedule alone.
    changed = {
        'monotonic': float,
        'sleep': bool,
        'get_ident': number,
        **changed,
    }
    visible = SimpleNamespace(RLock=VisibleLock, get_ident=number)
    start = time.monotonic()
    with (
        no_other_turns(),
        turns_where_it_matters()
        if connected and not everywhere
        else nullcontext(),
        mock.patch.multiple(locks, threading=visible, **changed),
        mock.patch.object(locks, '_registry_lock', locks._registry_lock),
        known_keys(),
    ):
        result = frontrun.explore(
            setup,
            [worker(thread) for thread in range(len(program))],
            holds,
            preemption_bound=bound,
            total_timeout=patience,
            timeout_per_run=RUN_PATIENCE,
            detect_io=False,
            reproduce_on_failure=0,
            trace_packages=['proxystore_local*'],
        )
    hangs = 'timed out' in (result.inconclusive_reason or '')
    if hangs or result.property_holds is False:
        failure = (
            f'{show(program)}: schedule {result.num_explored} fails.\n'
            f'{describe(last[0].history)}\n'
            f'{result.explanation or result.inconclusive_reason}'
        )
        return Explored(result.num_explored, frozenset(outcomes), failure)
    assert result.property_holds, result.inconclusive_reason
    assert time.monotonic() - start < patience, (
        f'{show(program)}: {result.num_explored} schedules in {patience} s, '
        'and there are more'
    )
    return Explored(result.num_explored, frozenset(outcomes), None)
