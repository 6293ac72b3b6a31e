"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction): it sees which objects the threads read and
write, bytecode by bytecode, and which locks they take. What it cannot see is
inside C. So the connector gets a dict whose operations are written in Python,
in steps, and which tells when somebody is inside who should not be.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from threading import get_ident
from types import SimpleNamespace
from typing import Any
from unittest import mock

import frontrun

from proxystore_local import BigReaderLock
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
        self.writer: int | None = None
        self.written: tuple[int, ...] = ()
        # What finalizers do inside the next operation of each thread. Called
        # as a partial it is hidden from frontrun: threads do not share it.
        self.finalizers: dict[int, Callable[[], object]] = {}
        self.set_finalizer = partial(self.finalizers.__setitem__)
        self.pop_finalizer = partial(self.finalizers.pop)

    def begin_read(self) -> int:
        assert self.writer in (None, get_ident()), 'a reader met a writer'
        return len(self.written)

    def end_read(self, written: int, found: Any) -> Any:
        me = get_ident()
        self.pop_finalizer(me, bool)()
        met = [thread for thread in self.written[written:] if thread != me]
        # Not an error: it may be known, so that the read runs again.
        return 'a writer came while a reader was inside' if met else found

    def begin_write(self) -> int | None:
        me = get_ident()
        outer = self.writer
        assert outer in (None, me), 'a writer met a writer'
        self.writer = me
        self.pop_finalizer(me, bool)()
        return outer

    def end_write(self, outer: int | None) -> None:
        me = get_ident()
        assert self.writer == me, 'a writer came while another was inside'
        self.written = (*self.written, me)
        self.writer = outer

    def __contains__(self, key: object) -> Any:
        written = self.begin_read()
        return self.end_read(written, self.inner.__contains__(key))

    # dict(self), which takes a snapshot, goes through these three.
    def keys(self) -> Any:
        return self.inner.copy().keys()

    def __iter__(self) -> Iterator[LocalKey]:
        return iter(self.keys())

    def __getitem__(self, key: LocalKey) -> bytes:
        value: bytes = self.get(key, b'gone')
        return value

    def get(self, key: LocalKey, default: Any = None) -> Any:
        written = self.begin_read()
        return self.end_read(written, self.inner.get(key, default))

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        self.update({key: value})

    def update(self, other: dict[LocalKey, bytes]) -> None:  # type: ignore[override]
        outer = self.begin_write()
        for key, value in other.items():
            self.inner.__setitem__(key, value)
        self.end_write(outer)

    def pop(self, key: LocalKey, *default: Any) -> Any:
        outer = self.begin_write()
        value = self.inner.pop(key, *default)
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

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.taker = 1
        return self.lock.acquire(blocking, timeout)

    def release(self) -> None:
        self.lock.release()


class Execution:
    """One run of a program, and the history of it.

    frontrun knows an object again in another run if it can be reached from
    this one at the start, by attributes and items of lists and dicts. So what
    our lock makes as it goes on, it gets from the spare ones here.

    Args:
        program: What each thread does.
        make_lock: Makes the connector's lock.
        known: The threads have passed the gate before, so that each has its
            own lock already.
        connected: There is a connector before the program starts. Else each
            thread makes its own.
    """

    def __init__(
        self,
        program: Program,
        make_lock: Callable[[], ReaderWriterLock],
        known: bool,
        connected: bool,
    ) -> None:
        self.program = program
        self.known = known
        self.store = SteppedDict()
        registry_lock = RecyclingLock()
        self.locks: list[Any] = [make_lock(), registry_lock]
        locks._registry_lock = registry_lock
        self.connectors: list[LocalConnector] = []
        if connected:
            self.connectors = [
                LocalConnector(
                    self.store,
                    include_data_in_config=True,
                    lock=lock,
                )
                for lock in (self.locks[0], None)
            ]
        self.histories: list[list[Call]] = [[] for _ in program]
        self.spare_locks = [
            [VisibleLock() for _ in range(SPARE)] for _ in program
        ]
        # What is called as a partial, frontrun does not see into. These are no
        # accesses to anything that the threads of the program share.
        self.clock = partial(next, itertools.count())
        self.numbers: dict[int, int] = {}
        self.number = partial(self.numbers.get)
        self.set_number = partial(self.numbers.__setitem__)

    def make_rlock(self) -> Any:
        """Make a lock, in place of threading.RLock()."""
        number = self.number(get_ident())
        if number is None:
            return VisibleLock()
        return partial(self.spare_locks[number].pop)()

    def work(self, thread: int) -> None:
        """Do what a thread of the program does."""
        self.set_number(get_ident(), thread)
        if self.known:
            own: Any = partial(self.locks[0]._entered.__setitem__)
            own(get_ident(), self.make_rlock())
        connectors = self.connectors
        for number, step in enumerate(self.program[thread]):
            value = b'%d.%d' % (thread, number)
            if step.name == 'connect':
                connectors = [self.connect(thread)] * 2
            else:
                self.do(thread, connectors, step, value)

    def connect(self, thread: int) -> LocalConnector:
        """Make a connector, and record it."""
        start = self.clock()
        connector = LocalConnector(self.store, include_data_in_config=True)
        end = self.clock()
        call = Call(thread, 'connect', (), None, start, end)
        self.histories[thread].append(call)
        return connector

    def do(
        self,
        thread: int,
        connectors: list[LocalConnector],
        step: Step,
        value: bytes,
    ) -> None:
        """Do one step of a thread, and record it."""
        if step.inside is not None:
            self.store.set_finalizer(
                get_ident(),
                partial(
                    self.do,
                    thread,
                    connectors,
                    step.inside,
                    value + b'.inside',
                ),
            )
        call = do(
            thread,
            connectors[step.second],
            step,
            value,
            self.clock,
        )
        self.histories[thread].append(call)

    @property
    def history(self) -> list[Call]:
        """All calls, and what a look at the dict finds after them."""
        found = look(self.store.inner, self.clock())
        return [*itertools.chain(*self.histories), found]


class RecyclingLock(BigReaderLock):
    """Our lock, that takes the dicts it makes from spare ones."""

    def __init__(self) -> None:
        self.spare: list[dict[int, Any]] = [{} for _ in range(SPARE)]
        self.recycle = partial(self.spare.pop)
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        if name == '_entered':
            assert value == {}
            value = self.recycle()
        super().__setattr__(name, value)


@dataclass(frozen=True)
class Explored:
    """What came of an exploration.

    Attributes:
        schedules: How many schedules were run.
        failure: What the first one that failed did, or `None` if none did.
    """

    schedules: int
    failure: str | None


def explore(
    program: Program,
    bound: int | None = None,
    *,
    make_lock: Callable[[], ReaderWriterLock] = RecyclingLock,
    known: bool = False,
    connected: bool = True,
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
        known: The threads have passed the gate of the lock before.
        connected: There is a connector before the program starts.
        patience: Seconds that it may take.
        changed: Names in `proxystore_local.locks`, and what to set them to.

    Returns:
        How many schedules there were, and the first that failed.

    Raises:
        AssertionError: If it took longer, so that not all was explored.
    """
    last: list[Execution] = []

    def setup() -> Execution:
        last.clear()
        last.append(Execution(program, make_lock, known, connected))
        return last[0]

    def worker(thread: int) -> Callable[[Execution], None]:
        return lambda execution: execution.work(thread)

    def holds(execution: Execution) -> bool:
        return linearize(execution.history, CONTENTS) is not None

    # Time stands still, as the outcome must depend on the schedule alone.
    changed = {'monotonic': float, 'sleep': bool} | changed
    visible = SimpleNamespace(
        RLock=lambda: last[0].make_rlock() if last else VisibleLock(),
        get_ident=get_ident,
    )
    start = time.monotonic()
    with (
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
        return Explored(result.num_explored, failure)
    assert result.property_holds, result.inconclusive_reason
    assert time.monotonic() - start < patience, (
        f'{show(program)}: {result.num_explored} schedules in {patience} s, '
        'and there are more'
    )
    return Explored(result.num_explored, None)
