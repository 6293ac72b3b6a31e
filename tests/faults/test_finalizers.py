"""Finalizers and signal handlers use the connector, and other locks beside.

Each scenario is a program of its own, which must come to its end: one that
hangs prints the stacks of its threads and fails.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib.util
import itertools
import os
import queue
import random
import signal
import sys
import textwrap
import time
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.points import at_point
from tests.support.processes import await_child
from tests.support.processes import FREE_THREADED
from tests.support.processes import needs_fork
from tests.support.processes import needs_gil
from tests.support.processes import run_apart
from tests.support.scenes import start

# Allocations: that many after the collector was enabled, it runs. An
# operation takes fewer.
ALLOCATIONS = range(40)
SECONDS = 1.0


def run_alone(program: str, printed: str = '') -> None:
    """Run a program in a process of its own, and see what it prints."""
    ended = run_apart('-W', 'ignore:This process', '-c', program)
    # What a finalizer raises is only printed.
    assert ended == (0, printed), ended[1]


def begin() -> None:
    """Begin a scenario, which has so many seconds."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    gc.freeze()  # So that a collection takes little time.


def collect_after(allocations: int) -> None:
    # Free-threaded builds wait for more garbage, unless the second is 0.
    gc.set_threshold(allocations + 1, 0 if FREE_THREADED else 10)


class Garbage:
    """A reference cycle with a finalizer.

    Args:
        finalize: What the finalizer does.
    """

    def __init__(self, finalize: Callable[[], object]) -> None:
        self.cycle = self
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
        collect_after(allocations)
        gc.enable()
        yield
        gc.disable()


def make_stores(connector: LocalConnector, count: int) -> list[Any]:
    from proxystore.store import Store  # noqa: PLC0415

    # Without a cache every read comes from the connector.
    return [
        Store(f'store-{i}', connector, cache_size=0, register=True)
        for i in range(count)
    ]


def owned_proxies_in_cycles() -> None:
    """Threads use two Stores, and drop proxies of them that are in cycles."""
    connector = LocalConnector()
    stores = make_stores(connector, 2)
    end = time.monotonic() + SECONDS

    def use() -> None:
        for number in itertools.count():
            store = stores[number % 2]
            cycle: list[Any] = []
            cycle.append(cycle)
            # Not always: ProxyStore registers it at exit, and the more are,
            # the longer that takes.
            if number % 50 < 2:
                cycle.append(store.owned_proxy('value'))
            key = store.put('value')
            assert store.get(key) == 'value'
            store.evict(key)
            if time.monotonic() > end:
                break

    for thread in [start(use) for _ in range(4)]:
        thread.result()
    gc.collect()
    assert len(connector) == 0


def a_store_held_by_another_thread() -> None:
    """A finalizer waits for a Store whose holder waits for the connector."""
    connector = LocalConnector(include_data_in_config=True)
    (store,) = make_stores(connector, 1)
    key = store.put('value')
    wanted: queue.SimpleQueue[None] = queue.SimpleQueue()
    held: queue.SimpleQueue[None] = queue.SimpleQueue()

    def deserialize(_: bytes) -> None:
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

    start(hold)
    for operation in OPERATIONS.values():
        owned = [store.owned_proxy('value') for _ in ALLOCATIONS]
        for _ in collections(finalize):
            operation(connector)
        gc.collect()
        assert owned == []


def handlers_that_use_a_store() -> None:
    """A signal handler interrupts uses of two Stores, and uses both."""
    connector = LocalConnector()
    stores = make_stores(connector, 2)
    end = time.monotonic() + SECONDS
    handled = 0

    def use() -> None:
        for store in stores:
            key = store.put('value')
            assert store.get(key) == 'value'
            store.evict(key)
            assert not store.exists(key)

    def use_again_and_again() -> None:
        while time.monotonic() < end:
            use()

    def handler(*_: object) -> None:
        nonlocal handled
        use()
        handled += 1
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-4))

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    threads = [start(use_again_and_again) for _ in range(2)]
    use_again_and_again()
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    for thread in threads:
        thread.result()
    assert handled
    assert len(connector) == 0


def forks_beside_an_executor() -> None:
    """Forks, which wait for the executor, whose user runs a finalizer."""
    sys.setswitchinterval(1e-4)
    connector = LocalConnector()
    end = time.monotonic() + SECONDS

    def submit() -> None:
        while time.monotonic() < end:
            collect_after(random.randrange(30))
            Garbage(lambda: connector.evict(A))
            pool.submit(connector.exists, A)

    with ThreadPoolExecutor(2) as pool:
        threads = [start(submit) for _ in range(3)]
        while time.monotonic() < end:
            pid = os.fork()
            if pid == 0:
                signal.alarm(PATIENCE // 2)
                assert connector.get(connector.put(b'child')) == b'child'
                os._exit(0)
            assert await_child(pid) == 0
        for thread in threads:
            thread.result()


def keys_that_are_not_hashable() -> None:
    """An exception is made, for which 3.11 runs the collector at once."""
    connector = LocalConnector({A: b'0'})
    key: Any = []
    operations: list[Callable[[], object]] = [
        lambda: connector.get(key),
        lambda: connector.exists(key),
        lambda: connector.get_batch([A, key]),
        lambda: connector.set(key, b'1'),
        lambda: connector.evict(key),
    ]
    for operation in operations:
        for _ in collections(lambda: connector.evict(A)):
            try:
                operation()
            except TypeError:
                pass
            else:
                raise AssertionError('the key was taken')


def connectors_inside_connectors() -> None:
    """A finalizer makes the first connector on a dict of which we make one."""
    made: list[LocalConnector] = []

    def finalize() -> None:
        made.append(LocalConnector(store))

    store: dict[LocalKey, bytes] = {}
    for _ in collections(finalize):
        made.append(LocalConnector(store))
        assert len({connector._guard for connector in made}) == 1
        store = {}
        made = []


# Daemon threads, and garbage that is found as the interpreter exits.
# A batch takes longer than a thread may keep the GIL, so that the daemons are
# stopped when they have just read one.
EXIT = """
    import faulthandler
    import gc
    import sys
    import threading
    from proxystore_local import LocalConnector

    class Garbage:
        def __init__(self):
            self.cycle = self
            self.connector = connector

        def __del__(self):
            self.connector.evict(self.connector.put(b''))
            print('finalized')

    def work():
        while True:
            connector.get_batch(keys)

    faulthandler.dump_traceback_later(30, exit=True)
    connector = LocalConnector()
    keys = connector.put_batch([b'']) * 100_000
    sys.setswitchinterval(1e-6)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    connector.get_batch(keys)
    gc.set_threshold(0)
    Garbage()
"""

# What is registered first comes last before a fork: a lock, as executors have
# one, and before it, a signal that the fork has begun.
FORK = """
    import os
    import signal
    import threading
    lock = threading.Lock()
    forking = threading.Event()
    os.register_at_fork(
        before=lock.acquire,
        after_in_parent=lock.release,
        after_in_child=lock.release,
    )
    os.register_at_fork(before=forking.set)
    import faulthandler
    from proxystore_local import LocalConnector

    def work():
        with lock:
            held.set()
            forking.wait()
            connector.evict(connector.put(b''))

    faulthandler.dump_traceback_later(30, exit=True)
    connector = LocalConnector()
    held = threading.Event()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(15)
        connector.put(b'')
        os._exit(0)
    killer = threading.Timer(20, os.kill, (pid, signal.SIGKILL))
    killer.start()
    assert os.waitpid(pid, 0) == (pid, 0)
    killer.cancel()
    thread.join()
    connector.put(b'')
"""


needs_proxystore = pytest.mark.skipif(
    importlib.util.find_spec('proxystore') is None,
    reason='proxystore cannot be installed on this Python',
)


@pytest.mark.parametrize(
    'scenario',
    [
        pytest.param(owned_proxies_in_cycles, marks=needs_proxystore),
        pytest.param(a_store_held_by_another_thread, marks=needs_proxystore),
        pytest.param(handlers_that_use_a_store, marks=needs_proxystore),
        pytest.param(forks_beside_an_executor, marks=[needs_fork, needs_gil]),
        keys_that_are_not_hashable,
        connectors_inside_connectors,
    ],
)
def test_comes_to_its_end(scenario: Callable[[], None]) -> None:
    run_alone(
        'import tests.faults.test_finalizers as scenarios; '
        f'scenarios.begin(); scenarios.{scenario.__name__}()',
    )


def test_exit_beside_daemon_threads() -> None:
    for _ in range(20):
        run_alone(textwrap.dedent(EXIT), 'finalized\n')


@needs_fork
def test_a_fork_that_waits_for_a_thread_that_uses_the_connector() -> None:
    run_alone(textwrap.dedent(FORK))


def test_a_connector_at_every_point_of_another() -> None:
    for point in itertools.count(1):
        store: dict[LocalKey, bytes] = {}
        made: list[LocalConnector] = []

        def make(
            made: list[LocalConnector] = made,
            store: dict[LocalKey, bytes] = store,
        ) -> None:
            made.append(LocalConnector(store))

        if not at_point(point, make, make):
            break
        assert made[0]._guard is made[1]._guard
