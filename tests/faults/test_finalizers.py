"""Finalizers and signal handlers use the connector, and other locks beside.

Each scenario is a program of its own, which must come to its end: one that
hangs prints the stacks of its threads and fails.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.util
import itertools
import queue
import signal
import sys
from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from proxystore_local import LocalConnector
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import OPERATIONS
from tests.support.points import at_point
from tests.support.processes import FREE_THREADED
from tests.support.processes import run_apart
from tests.support.scenes import start

# Allocations: that many after the collector was enabled, it runs. An
# operation takes fewer.
ALLOCATIONS = range(40)


class Garbage:
    """A reference cycle with a finalizer.

    Args:
        finalize: What the finalizer does.
    """

    def __init__(self, finalize: Callable[[], object]) -> None:
        self.cycle: object = self
        self.finalize = finalize

    def __del__(self) -> None:
        self.finalize()


def collections(finalize: Callable[[], object]) -> Iterator[None]:
    """Yield again and again: each time, the collector runs a bit later.

    Args:
        finalize: What a finalizer does then.
    """
    for allocations in ALLOCATIONS:
        gc.collect()
        gc.disable()
        Garbage(finalize)
        # Free-threaded builds wait for more garbage, unless the second is 0.
        gc.set_threshold(allocations + 1, 0 if FREE_THREADED else 10)
        gc.enable()
        yield
        gc.disable()


def a_store_held_by_another_thread() -> None:
    """A finalizer waits for a Store whose holder waits for the connector.

    So does a signal handler then, at each point where Python runs one.
    """
    from proxystore.store import Store  # noqa: PLC0415

    connector = LocalConnector(include_data_in_config=True)
    # Without a cache every read comes from the connector.
    store: Store[Any] = Store('store', connector, cache_size=0, register=True)
    key = store.put('value')
    wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
    held: queue.SimpleQueue[None] = queue.SimpleQueue()

    def deserialize(_: object) -> None:
        held.put(None)
        store.evict(A)

    def hold() -> None:
        while True:
            wanted.get()
            store.get(key, deserializer=deserialize)

    def finalize() -> None:
        wanted.put(None)
        held.get()
        owned.pop()

    def handle(*_: object) -> None:
        wanted.put(None)
        held.get()
        store.evict(A)

    start(hold)
    signal.signal(signal.SIGINT, handle)
    interrupt = partial(signal.raise_signal, signal.SIGINT)
    for operation in OPERATIONS.values():
        owned = [store.owned_proxy('value') for _ in ALLOCATIONS]
        for _ in collections(finalize):
            operation(connector)
        gc.collect()
        assert owned == []
        points = itertools.count(1)
        while at_point(next(points), interrupt, partial(operation, connector)):
            pass


def keys_that_are_missing_or_not_hashable() -> None:
    """An exception is made, for which 3.11 runs the collector at once."""
    connector = LocalConnector({A: b'0'})
    for _ in collections(lambda: connector.evict(A)):
        assert connector.get_batch([B, B]) == [None, None]
    keys: Any = [A, []]
    for name in ('get', 'exists', 'get_batch', 'set', 'evict'):
        method = getattr(connector, name)
        arguments = OPERATIONS[name].arguments(b'1', keys, number=1)
        for _ in collections(lambda: connector.evict(A)):
            # What allocates more than the exception must not come before it.
            try:
                method(*arguments)
            except TypeError:
                continue
            raise AssertionError('the key was taken')


class Deep:
    """What recurses in C when it is hashed, and then does something."""

    def __init__(self, depth: int, work: Callable[[], object] = bool) -> None:
        self.depth = depth
        self.work = work

    def __hash__(self) -> int:
        self.depth -= 1
        if self.depth:
            return hash(self)
        self.work()
        return 0


def finalizers_that_are_put_off() -> None:
    """One is due near the end of the stack, where CPython puts it off.

    It runs where the next container is freed.
    """
    sys.setrecursionlimit(10**6)
    depth = 1
    for step in (10_000, 1_000, 100, 10, 1):
        with contextlib.suppress(RecursionError):
            while True:
                hash(Deep(depth + step))
                depth += step
    connector = LocalConnector(include_data_in_config=True)
    for name, operation in OPERATIONS.items():
        keys = connector.put_batch([b'0', b'0'])
        finalized: list[bytes | None] = []

        def finalize(key: Any = keys[0], found: Any = finalized) -> None:
            connector.set(key, b'1')
            found.append(connector.get(key))

        garbage = [Garbage(finalize)]
        garbage[0].cycle = None  # It is freed without the collector.
        method = getattr(connector, name)
        arguments = operation.arguments(b'2', keys)
        deep = Deep(depth - 4, garbage.clear)
        hash(deep)
        assert not finalized, 'it was not put off'
        method(*arguments)
        del deep  # A container, if no other was freed before.
        assert finalized == [b'1']


def exit_beside_daemon_threads() -> None:
    """Garbage is found as the interpreter exits, where daemons have stopped.

    A batch takes longer than a thread may keep the GIL, so they are stopped
    when they have just read one.
    """
    connector = LocalConnector()
    keys = connector.put_batch([b'']) * 100_000
    sys.setswitchinterval(1e-6)

    def work() -> None:
        while True:
            connector.get_batch(keys)

    def finalize() -> None:
        connector.evict(connector.put(b''))
        print('finalized')

    # Not more: without a GIL, one may be stopped inside the dict and leave it
    # locked. That is CPython's, and happens to any dict.
    for _ in range(2):
        start(work)
    connector.get_batch(keys)
    gc.set_threshold(0)
    Garbage(finalize)


needs_proxystore = pytest.mark.skipif(
    importlib.util.find_spec('proxystore') is None,
    reason='proxystore cannot be installed on this Python',
)


def run(scenario: str) -> None:
    """Run a scenario, which has so many seconds."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    gc.freeze()  # So that a collection takes little time.
    globals()[scenario]()


@pytest.mark.parametrize(
    'scenario',
    [
        pytest.param(a_store_held_by_another_thread, marks=needs_proxystore),
        keys_that_are_missing_or_not_hashable,
        pytest.param(
            finalizers_that_are_put_off,
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13),
                reason='this Python puts off no finalizers',
            ),
        ),
        exit_beside_daemon_threads,
    ],
)
def test_comes_to_its_end(scenario: Callable[[], None]) -> None:
    name = scenario.__name__
    # How an interpreter exits is a matter of luck.
    for _ in range(10 if 'exit' in name else 1):
        code, printed = run_apart(
            '-c',
            f'import tests.faults.test_finalizers as it; it.run("{name}")',
        )
        # What a finalizer raises is only printed.
        assert code == 0, printed
        assert printed == ('finalized\n' if 'exit' in name else '')
