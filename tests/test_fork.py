"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import threading
import traceback
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias
from unittest import mock

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import keys
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import locks
from tests.checks import A
from tests.checks import OPERATIONS
from tests.checks import WRITES
from tests.harness import instrumented_locks
from tests.harness import load
from tests.harness import PATIENCE
from tests.harness import ReportingLock
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


Answer: TypeAlias = bool | BaseException | Callable[[], bool]


class LoggedLock:
    """A lock that logs what is done with it, and gives itself as told.

    Args:
        name: What the log calls it.
        log: Where it logs.
        answers: What it answers, one after the other; True from then on. An
            exception is raised, and what can be called is called.
    """

    def __init__(
        self,
        name: str,
        log: list[object],
        *answers: Answer,
    ) -> None:
        self._name = name
        self._log = log
        self._answers = iter(answers)

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self._log.append((self._name, blocking, timeout))
        answer = next(self._answers, True)
        if isinstance(answer, BaseException):
            raise answer
        return bool(answer() if callable(answer) else answer)

    def release(self) -> None:
        self._log.append(self._name)


def logged_locks(
    monkeypatch: pytest.MonkeyPatch,
    log: list[object],
    *answers: Answer,
) -> list[BigReaderLock]:
    """Make three locks with logged gates, the only ones that a fork takes.

    The second gate gives the answers.
    """
    monkeypatch.setattr(locks, '_locks', set())
    made = [BigReaderLock() for _ in range(3)]
    for lock, name in zip(made, 'abc'):
        told = answers if name == 'b' else ()
        monkeypatch.setattr(lock, '_gate', LoggedLock(name, log, *told))
    return made


def assert_closed_until_released(made: list[BigReaderLock]) -> None:
    assert locks._taken == {*made}
    assert [lock._own for lock in made] == [None] * len(made)
    # As in the parent.
    assert any(locks._releases)
    locks._taken.clear()
    assert all(lock._own is lock._entered for lock in made)
    assert locks._held == []


def test_a_fork_takes_the_oldest_lock_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []
    made = logged_locks(monkeypatch, log)
    locks._before_fork()
    # It waits for the first as long as it takes, for more while it has some.
    assert log == [('a', True, -1), ('b', True, 1.0), ('c', True, 1.0)]
    log.clear()
    assert_closed_until_released(made)
    assert log == ['c', 'b', 'a']


def test_a_fork_that_waits_in_vain_for_a_gate_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []
    made = logged_locks(monkeypatch, log, False)
    locks._before_fork()
    taken = [('b', True, -1), ('a', True, 1.0), ('c', True, 1.0)]
    assert log == [('a', True, -1), ('b', True, 1.0), 'a', *taken]
    log.clear()
    assert_closed_until_released(made)
    assert log == ['c', 'a', 'b']


def test_a_fork_that_has_many_locks_and_waits_in_vain_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []
    made = logged_locks(monkeypatch, log)
    made += [BigReaderLock() for _ in range(200)]
    monkeypatch.setattr(made[-1], '_gate', LoggedLock('last', log, False))
    locks._before_fork()
    del log[: log.index(('last', True, 1.0)) + 1]
    assert log[:4] == ['c', 'b', 'a', ('last', True, -1)]
    assert_closed_until_released(made)


def test_a_fork_that_waits_in_vain_twice_starts_with_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []
    made = logged_locks(monkeypatch, log, False)
    monkeypatch.setattr(made[2], '_gate', LoggedLock('c', log, False))
    locks._before_fork()
    assert log[-3:] == [('c', True, -1), ('b', True, 1.0), ('a', True, 1.0)]
    assert made[2]._number < made[1]._number < made[0]._number
    assert_closed_until_released(made)


def test_a_fork_that_waits_in_vain_for_a_reader_starts_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []
    made = logged_locks(monkeypatch, log)
    made[1]._entered[0] = LoggedLock('own', log, False, False)
    locks._before_fork()
    assert log == [
        ('a', True, -1),
        ('b', True, 1.0),
        ('own', False, -1),
        ('own', True, 1.0),
        'b',
        'a',
        ('b', True, -1),
        ('own', False, -1),
        'own',
        ('a', True, 1.0),
        ('c', True, 1.0),
    ]
    assert_closed_until_released(made)


def test_a_fork_takes_locks_that_are_made_while_it_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[object] = []

    def make_another() -> bool:
        made.append(BigReaderLock())
        monkeypatch.setattr(made[-1], '_gate', LoggedLock('d', log))
        return True

    made = logged_locks(monkeypatch, log, make_another)
    locks._before_fork()
    assert log[-2:] == [('c', True, 1.0), ('d', True, 1.0)]
    assert_closed_until_released(made)


@pytest.mark.parametrize('count', [1, 2])
def test_an_interrupted_fork_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    log: list[object] = []
    errors = [KeyboardInterrupt() for _ in range(count)]
    made = logged_locks(monkeypatch, log, *errors)
    # CPython prints it.
    with pytest.raises(KeyboardInterrupt) as caught:
        locks._before_fork()
    assert caught.value is errors[-1]
    assert_closed_until_released(made)


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
    for name, operation in OPERATIONS.items():
        store = SteppingDict()
        lock = BigReaderLock()
        connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=lock,
        )
        connector.set(A, b'0')
        statuses: list[int] = []

        def work(
            lock: BigReaderLock = lock,
            connector: LocalConnector = connector,
            writing: bool = name in WRITES,
        ) -> None:
            # The child is inside the operation as well.
            assert lock._own is (None if writing else lock._entered)
            connector.put(b'value')
            assert lock._own is (None if writing else lock._entered)

        def hook(
            store: SteppingDict = store,
            statuses: list[int] = statuses,
            work: Callable[[], None] = work,
        ) -> None:
            store.hook = lambda: None
            statuses.append(fork(work))

        store.hook = hook
        operation(connector)
        assert statuses == [0]
        use(connector)


@pytest.mark.timeout(60)
def test_a_fork_inside_a_read_while_a_writer_waits_for_it() -> None:
    # Another reader has the gate, so we read under our own lock. When it has
    # left, the writer has the gate and waits for that lock: we must let go of
    # it before we fork.
    inside, leave, waiting = (threading.Event() for _ in range(3))
    statuses: list[int] = []

    def about_to_block() -> None:
        if threading.current_thread() is writer:
            waiting.set()

    def await_writer() -> None:
        assert waiting.wait(PATIENCE)
        waiting.clear()

    def linger(_: None) -> None:
        inside.set()
        assert leave.wait(PATIENCE)

    def fork_while_a_writer_waits(_: None) -> None:
        if not statuses:
            writer.start()
            await_writer()  # At the gate.
            leave.set()
            await_writer()  # For us.
            statuses.append(fork(lambda: lock.exclusive(len, '')))

    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
        reader = threading.Thread(target=lock.shared, args=(linger, None))
        writer = threading.Thread(target=lock.exclusive, args=(len, ''))
        reader.start()
        assert inside.wait(PATIENCE)
        lock.shared(fork_while_a_writer_waits, None)
        for thread in (reader, writer):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert statuses == [0]


@pytest.mark.timeout(60)
def test_the_child_does_not_heed_threads_that_it_does_not_have() -> None:
    # A writer waits for the gate. A reader has taken its own lock, which we
    # have seen free just before, and is about to find the way closed.
    waiting, seen, acquired, leave = (threading.Event() for _ in range(4))

    class Lock(ReportingLock):
        """An own lock that the reader takes after it was seen free."""

        def __init__(self) -> None:
            super().__init__(threading.RLock(), waiting.set)
            self._free = self.release
            self.release = self.release_and_show

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            late = (
                threading.current_thread() is reader
                and self in lock._entered.values()
                and bool(entered)
            )
            if late:
                about_to_read.set()
                assert seen.wait(PATIENCE)
            taken = super().acquire(blocking, timeout)
            if late:
                acquired.set()
                assert leave.wait(PATIENCE)
            return taken

        def release_and_show(self) -> None:
            self._free()
            if self in lock._entered.values() and entered:
                seen.set()
                assert acquired.wait(PATIENCE)

    def read_twice() -> None:
        lock.shared(len, '')
        entered.append(True)
        lock.shared(len, '')

    def work() -> None:
        assert not lock._hints.writer_waits
        lock.exclusive(len, '')

    def inside(_: None) -> None:
        reader.start()
        assert about_to_read.wait(PATIENCE)
        writer.start()
        assert waiting.wait(PATIENCE)
        statuses.append(fork(work))
        entered.clear()
        leave.set()

    about_to_read = threading.Event()
    entered: list[bool] = []
    statuses: list[int] = []
    instrumented = types.SimpleNamespace(RLock=Lock)
    with mock.patch.object(locks, 'threading', instrumented):
        lock = BigReaderLock()
        reader = threading.Thread(target=read_twice)
        writer = threading.Thread(target=lock.exclusive, args=(len, ''))
        lock.shared(inside, None)
        for thread in (reader, writer):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert statuses == [0]


def test_the_child_has_a_registry_of_its_own() -> None:
    # It may find the old one locked by a thread that it does not have.
    connector = LocalConnector()
    before = locks._locks

    def known() -> set[BigReaderLock | None]:
        return {reference() for reference in locks._locks}

    def check() -> None:
        nonlocal connector
        assert locks._locks is not before
        assert known() == expected
        # What is freed leaves it.
        expected.clear()
        count = len(locks._locks)
        del connector
        assert len(locks._locks) == count - 1
        lock = BigReaderLock()
        assert lock in known()

    expected = known()
    assert connector._guarded.lock in expected
    assert fork(check) == 0
    assert locks._locks is before
    assert known() == expected


@pytest.mark.timeout(60)
def test_one_thread_forks_at_a_time() -> None:
    inside, leave = threading.Event(), threading.Event()
    acquired: list[bool] = []

    def linger() -> None:
        inside.set()
        assert leave.wait(PATIENCE)

    def can_another_fork() -> None:
        def acquire() -> None:
            acquired.append(locks._forking.acquire(blocking=False))
            if acquired[-1]:
                locks._forking.release()

        thread = threading.Thread(target=acquire)
        thread.start()
        thread.join(PATIENCE)

    def about_to_block() -> None:
        can_another_fork()
        leave.set()

    def check() -> None:
        can_another_fork()
        assert acquired == [False, True]

    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
    writer = threading.Thread(target=lock.exclusive, args=(linger,))
    writer.start()
    assert inside.wait(PATIENCE)
    assert fork(check) == 0
    check()
    writer.join(PATIENCE)
    assert not writer.is_alive()


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
    # Not those that are alive: multiprocessing may have some as well.
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass


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
    # From then on it waits where it was in vain before it takes others, if it
    # has to wait there at all.
    assert with_earlier[0]
    assert not any(with_earlier[1:])


def test_all_works_where_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, 'register_at_fork')
    for module in (keys, locks):
        copy = load(Path(str(module.__file__)))
        if module is keys:
            assert copy.mint() != copy.mint()
        else:
            assert copy.BigReaderLock().exclusive(len, 'abc') == 3
