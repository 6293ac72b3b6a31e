"""An exception at any point of any operation does no harm, and surfaces."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import Any

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import locks
from tests.checks import A
from tests.checks import OPERATIONS
from tests.harness import instrumented_locks
from tests.harness import interrupted_at
from tests.harness import PATIENCE
from tests.harness import ReportingLock
from tests.harness import SteppingDict


@pytest.fixture
def interrupting() -> Iterator[Callable[[BaseException], Any]]:
    """Gives a function that interrupts the main thread with an exception."""
    coming: list[BaseException] = []

    def handler(*_: object) -> None:
        raise coming.pop()

    def interrupt(error: BaseException) -> None:
        coming.append(error)
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    yield interrupt
    signal.signal(signal.SIGUSR1, before)


# All but the first could be taken for what our code itself runs into.
ERRORS = [
    KeyboardInterrupt(),
    RuntimeError('from a handler'),
    StopIteration(),
    TypeError('from a handler'),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize('error', ERRORS, ids=repr)
@pytest.mark.parametrize('operation', OPERATIONS)
def test_inside_an_operation(
    interrupting: Callable[[BaseException], Any],
    operation: str,
    error: BaseException,
) -> None:
    if operation == 'get_batch' and isinstance(error, StopIteration):
        pytest.skip('the stepping dict raises it inside map(), a dict cannot')
    store = SteppingDict()
    connector = LocalConnector(store, include_data_in_config=True)
    connector.set(A, b'0')
    store.hook = lambda: interrupting(error)
    with pytest.raises(type(error)) as caught:
        OPERATIONS[operation](connector)
    assert caught.value is error
    store.hook = lambda: None
    assert_free(connector)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('error', ERRORS, ids=repr)
@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.parametrize('holder', ['set', 'get'])
def test_while_blocked(
    interrupting: Callable[[BaseException], Any],
    holder: str,
    operation: str,
    error: BaseException,
) -> None:
    inside, leave = threading.Event(), threading.Event()
    store = SteppingDict()

    def hook() -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert leave.wait(PATIENCE)

    def about_to_block() -> None:
        if threading.current_thread() is threading.main_thread():
            interrupting(error)

    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
        connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=lock,
        )
        connector.set(A, b'0')
        store.hook = hook
        thread = threading.Thread(target=OPERATIONS[holder], args=(connector,))
        thread.start()
        assert inside.wait(PATIENCE)
        if holder == 'get' and operation in ('get', 'exists'):
            # Readers do not block readers.
            OPERATIONS[operation](connector)
        elif holder == 'set' or operation in ('set', 'evict', 'put'):
            contents = dict(store.items())
            with pytest.raises(type(error)) as caught:
                OPERATIONS[operation](connector)
            assert caught.value is error
            assert dict(store.items()) == contents
        leave.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        store.hook = lambda: None
        assert_free(connector)


class Scene:
    """Other threads that are inside when the main thread's operation starts.

    They leave, the first who came first, when the main thread is about to
    block.

    Args:
        others: What each does, `shared` or `exclusive`; or `gone`, if it has
            read and left.
    """

    def __init__(self, *others: str) -> None:
        self.leave = [threading.Event() for _ in others]
        self.threads: list[threading.Thread] = []
        self.waiting = iter(self.leave)
        with instrumented_locks(self.about_to_block):
            self.lock = BigReaderLock()
            for other, leave in zip(others, self.leave):
                inside = threading.Event()
                gone = other == 'gone'
                thread = threading.Thread(
                    target=getattr(self.lock, 'shared' if gone else other),
                    args=(self.linger, (inside, leave)),
                    daemon=True,
                )
                thread.start()
                assert inside.wait(PATIENCE)
                self.threads.append(thread)
                if gone:
                    leave.set()
                    thread.join(PATIENCE)

    @staticmethod
    def linger(events: tuple[threading.Event, threading.Event]) -> None:
        inside, leave = events
        inside.set()
        assert leave.wait(PATIENCE)

    def about_to_block(self) -> None:
        if threading.current_thread() is threading.main_thread():
            next(self.waiting).set()

    def end(self) -> None:
        for leave in self.leave:
            leave.set()
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


# Each with the others that are inside, who has the gate first.
SCENES = [
    (),
    ('shared',),
    ('exclusive',),
    ('shared', 'shared'),
    ('shared', 'gone'),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    'error',
    # Some sort before what RLock says and some after it.
    [KeyboardInterrupt(), RuntimeError('a'), RuntimeError('z')],
    ids=repr,
)
@pytest.mark.parametrize('hold_back', [None, 'inhibited', 'backoff'])
@pytest.mark.parametrize('inner', [None, 'shared', 'exclusive'])
@pytest.mark.parametrize('outer', ['shared', 'exclusive'])
@pytest.mark.parametrize('others', SCENES, ids='-'.join)
def test_at_every_point_of_the_lock(
    monkeypatch: pytest.MonkeyPatch,
    others: tuple[str, ...],
    outer: str,
    inner: str | None,
    hold_back: str | None,
    error: BaseException,
) -> None:
    backoff = (0.0, 0.0) if hold_back == 'backoff' else ()
    monkeypatch.setattr(locks, '_BACKOFF', backoff)
    # In the middle of letting go, too.
    monkeypatch.setattr(locks, 'repeat', repeat)
    for point in itertools.count(1):
        # Not the same, which would keep all of its tracebacks alive.
        error = type(error)(*error.args)
        scene = Scene(*others)
        lock = scene.lock
        if hold_back == 'inhibited':
            lock._hints.inhibited_until = monotonic() + PATIENCE
        work = partial(getattr(lock, outer), partial(use, lock, inner), None)
        interrupted = interrupted_at(point, error, work)
        scene.end()
        for _ in range(2):
            # First in a thread: we would let go of what we still have.
            in_a_thread(partial(lock.exclusive, len, ''))
            in_a_thread(partial(lock.shared, len, ''))
            lock.exclusive(len, '')
            lock.shared(len, '')
        # Readers may pass the gate again.
        assert lock._own is lock._entered
        assert not lock._hints.writer_waits
        if not interrupted:
            break


@pytest.mark.timeout(60)
@pytest.mark.parametrize('message', ['a', 'z'])
def test_while_an_interrupted_read_gives_back_its_own_lock(
    message: str,
) -> None:
    error = RuntimeError(message)

    class OwnLock(ReportingLock):
        def __init__(self) -> None:
            super().__init__(threading.RLock(), lambda: None)
            self._free = self.release
            self.release = self.release_and_raise

        def release_and_raise(self) -> None:
            self.release = self._free
            self.release()
            raise error

    def interrupted(_: None) -> None:
        raise KeyboardInterrupt

    scene = Scene('shared')
    scene.lock._entered[threading.get_ident()] = OwnLock()
    with pytest.raises(RuntimeError) as caught:
        scene.lock.shared(interrupted, None)
    assert caught.value is error
    scene.end()
    in_a_thread(partial(scene.lock.exclusive, len, ''))


def repeat(*arguments: Any) -> Iterator[Any]:
    return itertools.repeat(*arguments)


def use(lock: BigReaderLock, how: str | None, _: None) -> None:
    if how is not None:
        getattr(lock, how)(len, '')


def assert_free(connector: LocalConnector) -> None:
    """Every operation works, from this thread and from another."""
    failures: list[BaseException] = []

    def use() -> None:
        try:
            connector.set(A, b'0')
            for operation in OPERATIONS.values():
                operation(connector)
            key = connector.put(b'value')
            assert connector.get(key) == b'value'
        except BaseException as error:
            failures.append(error)

    for run in (use, lambda: in_a_thread(use), use):
        run()
    assert failures == []
    assert connector.get(LocalKey('missing')) is None


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), 'the lock was left taken'
