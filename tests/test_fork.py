"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib.util
import os
import signal
import threading
import traceback
import weakref
from collections.abc import Callable

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import keys
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import locks
from tests.checks import A
from tests.checks import OPERATIONS
from tests.harness import instrumented_locks
from tests.harness import PATIENCE
from tests.harness import SteppingDict

pytestmark = [
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork'),
    # What the warning is about is what is tested here.
    pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning'),
]


def fork(work: Callable[[], object]) -> int:
    """Fork, do something in the child, and return the child's status."""
    pid = os.fork()
    if pid == 0:
        try:
            # A child that hangs ends with this signal, and says where.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, 2, chain=True)
            signal.alarm(PATIENCE)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1]


def use(connector: LocalConnector) -> None:
    for operation in OPERATIONS.values():
        operation(connector)
    thread = threading.Thread(target=connector.put, args=(b'value',))
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.timeout(60)
@pytest.mark.parametrize('operation', ['put_batch', 'get', 'set'])
def test_the_child_finds_no_operation_half_done(operation: str) -> None:
    store = SteppingDict()
    connector = LocalConnector(store)
    connector.set(A, b'0')
    connector.get(A)
    inside, forking = threading.Event(), threading.Event()

    def hook() -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert forking.wait(PATIENCE)

    def check() -> None:
        store.hook = lambda: None
        expected = {'put_batch': 3, 'get': 1, 'set': 2}
        assert len(connector) == expected[operation]
        use(connector)

    thread = threading.Thread(
        target=OPERATIONS[operation],
        args=(connector,),
    )
    store.hook = hook
    thread.start()
    assert inside.wait(PATIENCE)
    # The fork waits for the operation, so that has to end meanwhile.
    threading.Timer(0, forking.set).start()
    assert fork(check) == 0
    thread.join(PATIENCE)
    store.hook = lambda: None
    use(connector)


@pytest.mark.timeout(60)
def test_a_fork_from_inside_an_operation() -> None:
    for operation in OPERATIONS.values():
        store = SteppingDict()
        connector = LocalConnector(store, include_data_in_config=True)
        connector.set(A, b'0')
        statuses: list[int] = []

        def hook(
            store: SteppingDict = store,
            connector: LocalConnector = connector,
            statuses: list[int] = statuses,
        ) -> None:
            store.hook = lambda: None
            statuses.append(fork(lambda: connector.put(b'value')))

        store.hook = hook
        operation(connector)
        assert statuses == [0]
        use(connector)


@pytest.mark.timeout(60)
def test_two_threads_fork_at_once() -> None:
    connector = LocalConnector()
    start = threading.Barrier(2)
    statuses: list[int] = []

    def work() -> None:
        for _ in range(10):
            start.wait(PATIENCE)
            statuses.append(fork(lambda: use(connector)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 20
    use(connector)


@pytest.mark.timeout(60)
def test_keys_minted_on_both_sides_differ() -> None:
    connector = LocalConnector()
    connector.new_key()
    reading, writing = os.pipe()

    def mint() -> None:
        ids = [connector.new_key().id for _ in range(1000)]
        with open(writing, 'w', closefd=False) as pipe:
            pipe.write('\n'.join(ids))

    status = fork(mint)
    os.close(writing)
    with open(reading) as pipe:
        theirs = set(pipe.read().split())
    mine = {connector.new_key().id for _ in range(1000)}
    assert status == 0
    assert len(theirs) == len(mine) == 1000
    assert not theirs & mine


@pytest.mark.timeout(60)
def test_a_lock_that_is_made_while_a_fork_waits_is_held_too() -> None:
    # The fork waits for a writer, who makes a connector before it is done.
    store = SteppingDict()
    connector = LocalConnector(store)
    made: list[BigReaderLock] = []
    inside, forking = threading.Event(), threading.Event()

    def hook() -> None:
        store.hook = lambda: None
        inside.set()
        assert forking.wait(PATIENCE)
        made.append(BigReaderLock())

    def check() -> None:
        made[0].exclusive(len, '')
        use(connector)

    store.hook = hook
    thread = threading.Thread(target=connector.set, args=(A, b'1'))
    thread.start()
    assert inside.wait(PATIENCE)
    threading.Timer(0, forking.set).start()
    assert fork(check) == 0
    thread.join(PATIENCE)


@pytest.mark.timeout(60)
def test_nothing_is_kept_alive_by_a_fork() -> None:
    gc.collect()
    store = type('Store', (dict,), {})()
    connector = LocalConnector(store)
    references = [
        weakref.ref(thing)
        for thing in (connector, connector._guarded.lock, store)
    ]

    def check() -> None:
        assert [reference() for reference in references] == [None] * 3

    def drop_and_check() -> None:
        nonlocal connector, store
        del connector, store
        check()

    assert fork(drop_and_check) == 0
    assert connector.get(LocalKey('missing')) is None
    del connector, store
    check()


@pytest.mark.timeout(60, method='thread')
# CPython only prints what is raised in a function that it calls at a fork.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_a_signal_during_the_fork_leaves_nothing_taken() -> None:
    connector = LocalConnector()
    handled = 0

    def handler(*_: object) -> None:
        nonlocal handled
        handled += 1
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for number in range(200):
            try:
                delay = 10e-6 * (number % 100 + 1)
                signal.setitimer(signal.ITIMER_REAL, delay)
                if os.fork() == 0:
                    os._exit(0)
                while handled == number:
                    connector.put(b'value')
            except KeyboardInterrupt:
                pass
    finally:
        signal.signal(signal.SIGALRM, before)
    use(connector)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('beside', [False, True])
def test_a_fork_lets_go_when_it_gets_no_further(
    monkeypatch: pytest.MonkeyPatch,
    beside: bool,
) -> None:
    # A thread inside an operation on one lock needs an earlier one, which
    # the fork has already.
    monkeypatch.setattr(locks, '_FORK_PATIENCE', 0.01)
    forking = threading.Event()
    with_earlier: list[bool] = []

    def report() -> None:
        if threading.current_thread() is threading.main_thread():
            with_earlier.append(earlier._guarded.lock in locks._taken)
            forking.set()

    with instrumented_locks(report):
        earlier, later = LocalConnector(), LocalConnector()
        lock = later._guarded.lock
        assert isinstance(lock, BigReaderLock)

        def need(_: object) -> None:
            inside.set()
            assert forking.wait(PATIENCE)
            earlier.put(b'value')

        def linger(_: object) -> None:
            inside.set()
            assert leave.wait(PATIENCE)

        inside, leave = threading.Event(), threading.Event()
        at_the_gate = threading.Thread(
            target=lock.shared,
            args=(linger, None),
        )
        if beside:
            at_the_gate.start()
            assert inside.wait(PATIENCE)
            inside.clear()
        thread = threading.Thread(target=lock.shared, args=(need, None))
        thread.start()
        assert inside.wait(PATIENCE)
        if beside:
            leave.set()
            at_the_gate.join(PATIENCE)

        def check() -> None:
            assert len(earlier) == 1
            use(earlier)
            use(later)

        assert fork(check) == 0
        thread.join(PATIENCE)
        assert not thread.is_alive()
        use(earlier)
        use(later)
    # The second time it waits where it was in vain, before it takes others.
    assert with_earlier == [True, False]


def test_all_works_where_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, 'register_at_fork')
    for module in (keys, locks):
        spec = importlib.util.spec_from_file_location('copy', module.__file__)
        assert spec is not None
        assert spec.loader is not None
        copy = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(copy)
        if module is keys:
            assert copy.mint() != copy.mint()
        else:
            assert copy.BigReaderLock().exclusive(len, 'abc') == 3
