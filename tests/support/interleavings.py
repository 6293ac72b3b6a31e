"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction). It sees what attributes threads use, but not
what happens inside C. So the dict, and what its lock consists of, are replaced
by classes each use of which is a step that it sees. All else is hidden from
it: it would take the turn from a thread wherever an attribute is used, be it
shared or not.
"""

from __future__ import annotations

import inspect
import itertools
import sys
import threading
import time
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from collections.abc import Callable
from functools import partial
from operator import methodcaller
from types import FunctionType
from types import ModuleType
from typing import Any
from typing import TypeVar

import frontrun

from proxystore_local import connector
from proxystore_local import guarded
from proxystore_local import registry
from proxystore_local.guarded import DictGuard
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.locks import PATIENCE
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import Program

T = TypeVar('T')

# How frontrun knows code that it is not to see into.
HIDDEN = '<frozen>'

# How often a thread may wake up while others can go on: a reader that wakes up
# so often opens the dict that a writer has left closed.
FREE_WAITS = 3

# How often a thread may wait at all.
MOST_WAITS = 50


def hidden(kind: type[T]) -> type[T]:
    """Hide the methods of a class from frontrun (but not its properties)."""
    for method in vars(kind).values():
        if isinstance(method, FunctionType):
            method.__code__ = method.__code__.replace(co_filename=HIDDEN)
    return kind


def hidden_module(source: str) -> Any:
    """Run the source of a module again, as code that is hidden."""
    module = ModuleType('hidden')
    exec(compile(source, HIDDEN, 'exec'), vars(module))
    return module


class Stepped:
    """What threads share. frontrun may take the turn before each step."""

    used: object = None

    def read_step(self) -> None:
        self.used  # noqa: B018

    def write_step(self) -> None:
        self.used = True


@hidden
class SteppedDict(Stepped):
    """A dict that detects when a writer meets anybody inside."""

    def __init__(self) -> None:
        self.inner = dict(CONTENTS)
        self.readers = 0
        self.writing = False

    def read(self, operation: Callable[..., Any], *arguments: object) -> Any:
        self.read_step()
        assert not self.writing, 'a reader met a writer'
        self.readers += 1
        self.read_step()
        self.readers -= 1
        return operation(*arguments)

    def write(self, operation: Callable[..., Any], *arguments: object) -> None:
        self.write_step()
        assert not self.writing, 'a writer met a writer'
        assert not self.readers, 'a writer met a reader'
        self.writing = True
        self.write_step()
        self.writing = False
        operation(*arguments)

    def __contains__(self, key: object) -> Any:
        return self.read(self.inner.__contains__, key)

    def __getitem__(self, key: Any) -> Any:
        return self.read(self.inner.__getitem__, key)

    def get(self, key: Any) -> Any:
        return self.read(self.inner.get, key)

    def __setitem__(self, key: Any, value: bytes) -> None:
        self.write(self.inner.__setitem__, key, value)

    def __delitem__(self, key: Any) -> None:
        self.write(self.inner.__delitem__, key)

    def pop(self, key: Any, default: None) -> None:
        self.write(self.inner.pop, key, default)

    def update(self, other: Any) -> None:
        self.write(self.inner.update, other)

    def __len__(self) -> Any:
        return self.read(len, self.inner)

    # What {}.update(self), which takes a snapshot, begins with.
    def keys(self) -> Any:
        return self.read(list, self.inner)


@hidden
class SteppedList(Stepped, list[Any]):
    """A list of the lock, each use of which is one step."""

    def __iadd__(self, items: Any) -> Any:  # type: ignore[misc]
        self.write_step()
        self.extend(items)
        return self

    def __delitem__(self, index: Any) -> None:
        self.write_step()
        super().__delitem__(index)

    def __bool__(self) -> bool:
        self.read_step()
        return len(self) > 0


# Which thread it is: its number in the program.
THIS = threading.local()


def stepped_guard(source: str = inspect.getsource(guarded)) -> Any:
    """Make GuardedDict with a lock each step of which frontrun sees.

    This is the one place that uses the private names of the guard.

    Args:
        source: The source of its module.

    Returns:
        A subclass.
    """
    module = hidden_module(source)

    @hidden
    class SteppedGuard(module.GuardedDict):  # type: ignore[misc,name-defined]
        def renew(self) -> None:
            super().renew()
            self._gate: Any = SteppedList(self._gate)
            self._readers: Any = SteppedList(self._readers)
            # frontrun does not look for them in slots; see explore().
            self.lists = self._gate, self._readers
            # The number of each thread, as often as it had to wait.
            self.waits: list[int] = []

        @property
        def _closed(self) -> bool:
            return self.closed

        @_closed.setter
        def _closed(self, value: bool) -> None:
            self.closed = value

        def _wait(self, _: float) -> None:
            self.waits.append(THIS.thread)
            count = self.waits.count(THIS.thread)
            assert count <= MOST_WAITS, 'waits for ever'
            if count > FREE_WAITS:
                # frontrun takes no time for it, but lets the thread wake up
                # only where all others have ended or sleep longer. The next
                # thread does: this one must not depend on it to come back.
                time.sleep((2 * MOST_WAITS) ** THIS.thread)

    return SteppedGuard


GUARD = stepped_guard()
CONNECTOR = hidden_module(inspect.getsource(connector))
CONNECTOR.mint = partial(KEYS.__getitem__, 0)
CONNECTOR.mint_batch = lambda count: KEYS[:count]


@hidden
class Execution(Stepped):
    """One run of a program, and the history of it.

    Args:
        program: What each thread does.
        make_guard: Makes the guard of the dict.
    """

    def __init__(
        self,
        program: Program,
        make_guard: Callable[[Any], DictGuard] = GUARD,
    ) -> None:
        self.store = SteppedDict()
        self.guard: Any = make_guard(self.store)
        # Of each thread the names, methods and arguments. They are looked up
        # here, as a thread would be seen to do so.
        self.operations: list[list[tuple[str, Any, Any]]] = []
        for thread, steps in enumerate(program):
            own = CONNECTOR.LocalConnector(include_data_in_config=True)
            own._guard = self.guard
            self.operations.append([])
            for number, step in enumerate(steps):
                arguments = step.arguments(b'%d.%d' % (thread, number))
                method = getattr(own, step.name)
                self.operations[-1].append((step.name, method, arguments))
        self.clock = itertools.count()
        self.history: list[Call] = []

    def work(self, thread: int) -> None:
        THIS.thread = thread
        for name, method, arguments in self.operations[thread]:
            self.read_step()
            start = next(self.clock)
            try:
                result = method(*arguments)
            except (AssertionError, KeyError, IndexError) as error:
                result = error
            end = next(self.clock)
            self.history.append(
                Call(thread, name, arguments, result, start, end),
            )

    def check(self) -> bool:
        assert_linearizable(self.history, CONTENTS, self.store.inner)
        return True


@hidden
class SteppedRegistry(Stepped, dict[Any, Any]):
    """The registry's dict, each use of which is one step."""

    def setdefault(self, key: object, entry: Any) -> Any:  # type: ignore[override]
        self.write_step()
        return super().setdefault(key, entry)

    def remove_dead(self, _: object, key: object) -> None:
        self.write_step()
        _remove_dead_weakref(self, key)


@hidden
class FirstGuards:
    """Threads that ask for the guard of data that has none yet.

    The first thread drops its first one, so that the others may find a dead
    entry in the registry.

    Args:
        by_id: Ask by an identifier, and not by the dict.
        make_registry: Makes the registry's dict.
    """

    def __init__(
        self,
        by_id: bool,
        make_registry: Callable[[], Any] = SteppedRegistry,
    ) -> None:
        module = hidden_module(inspect.getsource(registry))
        self.guards = module._guards = make_registry()
        module._remove_dead_weakref = self.guards.remove_dead
        store: dict[Any, bytes] = {}
        self.found: list[object] = []
        self.guard: Any = partial(module.guard, store, None, None)
        if by_id:
            self.guard = lambda: module.guard({}, None, 'identifier')

    def work(self, thread: int) -> None:
        if thread == 0:
            self.guard()
        self.found.append(self.guard())

    def check(self) -> bool:
        entries = {entry() for entry in self.guards.values()}
        return entries == {*self.found} == {self.found[0]}


Run = TypeVar('Run', Execution, FirstGuards)


def explore(
    make: Callable[[], Run],
    threads: int,
    bound: int | None = None,
) -> list[Run]:
    """Let threads work under every schedule.

    frontrun knows an object again in another run if it can be reached from
    what is made, by attributes and items of lists and dicts.

    Args:
        make: Makes what they work on.
        threads: How many there are.
        bound: How often a schedule may take the turn from a thread that could
            go on; `None` is any number of times.

    Returns:
        What was made, for each schedule.

    Raises:
        AssertionError: If what one leaves does not pass its check.
    """
    runs: list[Run] = []

    def setup() -> Run:
        runs.append(make())
        return runs[-1]

    interval = sys.getswitchinterval()
    # The interpreter must not take the turn: another thread would go on before
    # one has done what frontrun saw it begin.
    sys.setswitchinterval(PATIENCE)
    try:
        result = frontrun.explore(
            setup,
            [methodcaller('work', thread) for thread in range(threads)],
            methodcaller('check'),
            preemption_bound=bound,
            clock='virtual',
            timeout_per_run=PATIENCE,
            detect_io=False,
            reproduce_on_failure=0,
        )
    finally:
        sys.setswitchinterval(interval)
    print(f'{result.num_explored} schedules')
    result.assert_holds()
    return runs
