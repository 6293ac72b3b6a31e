"""Exceptions and other code at every point of every operation do no harm.

CPython lets others in at certain points: there it raises an exception that a
signal handler raised or another thread has set, runs handlers and finalizers,
and switches threads. These tests stop at each such point in turn.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from typing import TypeAlias
from unittest import mock

import pytest
from readerwriterlock import rwlock
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import guarded
from proxystore_local import LocalConnector
from tests.checks import A
from tests.checks import B
from tests.checks import held
from tests.checks import LockMaker
from tests.checks import OPERATIONS
from tests.checks import STOPPED
from tests.harness import PATIENCE
from tests.harness import ReportingLock

# Whose points are stopped at. The second is for the tests of the tests.
FILES = (str(Path(guarded.__file__).parent), rwlock.__file__)

# All but the first could be taken for what our code itself runs into.
ERRORS: list[type[BaseException]] = [
    KeyboardInterrupt,
    AttributeError,
    IndexError,
    MemoryError,
    StopIteration,
    TypeError,
    ValueError,
]

Scene: TypeAlias = Callable[
    [LocalConnector],
    contextlib.AbstractContextManager[Callable[[], object]],
]


def at_point(
    point: int,
    intrude: Callable[[], object],
    work: Callable[[], object],
) -> bool:
    """Do something, and call a function at a point where CPython may do so.

    That is when a function in FILES is entered, or when a call from there has
    returned. Backward jumps are not reached, nor what C calls.

    Args:
        point: Number of the point, from 1; or 0 for none.
        intrude: Called there. What it raises is raised there.
        work: What to do.

    Returns:
        If there was such a point.
    """
    reached = 0

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal reached
        if event == 'return':
            frame = frame.f_back
        elif event not in ('call', 'c_return'):
            return
        if frame and frame.f_code.co_filename.startswith(FILES):
            reached += 1
            if reached == point:
                sys.setprofile(None)
                intrude()

    # What the collector calls, such as callbacks of weak references, would
    # count as a point too, and what is raised there is not passed on.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return 0 < point <= reached


@contextlib.contextmanager
def alone(_: LocalConnector) -> Iterator[Callable[[], object]]:
    yield lambda: None


@contextlib.contextmanager
def beside(
    stopped: str,
    connector: LocalConnector,
    *,
    closed: bool = False,
) -> Iterator[Callable[[], object]]:
    """Have another thread inside, until the calling one waits a third time.

    Args:
        stopped: Operation that the other thread is in.
        connector: Connector to stop it in.
        closed: The other is a reader, and a writer has given up since, so
            that it left the dict closed.

    Yields:
        Function that lets the other thread leave.
    """
    waits = 0

    def sleep(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            leave()

    with held(connector, stopped) as leave:
        if closed:
            give_up = mock.Mock(side_effect=KeyboardInterrupt)
            with (
                mock.patch.object(guarded, 'sleep', give_up),
                pytest.raises(KeyboardInterrupt),
            ):
                connector.set(A, b'2')
        with mock.patch.object(guarded, 'sleep', sleep):
            yield leave
            leave()


SCENES: dict[str, Scene] = {
    'alone': alone,
    'beside a reader': partial(beside, 'get'),
    'beside a writer': partial(beside, 'set'),
    'closed': partial(beside, 'get', closed=True),
}

every_scene = pytest.mark.parametrize('scene', SCENES)
every_operation = pytest.mark.parametrize('operation', OPERATIONS)


def check_interrupted(
    make_lock: LockMaker,
    operation: str,
    scene: Scene = alone,
    kind: type[BaseException] = KeyboardInterrupt,
) -> None:
    """An interrupted operation completes or has no effect, and frees all."""

    def run(point: int) -> tuple[bool, list[bytes]]:
        """Interrupt at a point: if there was one, and what is stored then."""
        # Not one for all points, which would keep all tracebacks alive.
        error = kind(point)
        raised: list[BaseException] = []

        def interrupt() -> None:
            raise error

        store = {A: b'0'}
        connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=make_lock(),
        )
        work = partial(OPERATIONS[operation], connector)
        with scene(connector):
            try:
                assert not at_point(point, interrupt, work), 'was swallowed'
            except kind as caught:
                raised.append(caught)
        assert raised in ([], [error])
        stored = sorted(store.values())
        assert_free(connector)
        return bool(raised), stored

    _, whole = run(0)
    _, nothing = run(1)  # At the first point nothing is done yet.
    for point in itertools.count(2):
        interrupted, stored = run(point)
        assert stored in (nothing, whole)
        if not interrupted:
            break


def check_intruded(
    make_lock: LockMaker,
    operation: str,
    scene: Scene = alone,
) -> None:
    """Other code finds the dict free, in this thread and in others."""
    for point in itertools.count(1):
        connector = LocalConnector(
            {A: b'0'},
            include_data_in_config=True,
            lock=make_lock(),
        )
        with scene(connector) as leave:

            def intrude(
                leave: Callable[[], object] = leave,
                connector: LocalConnector = connector,
            ) -> None:
                leave()
                assert_free(connector)

            work = partial(OPERATIONS[operation], connector)
            if not at_point(point, intrude, work):
                break
        assert_free(connector)


def assert_free(connector: LocalConnector) -> None:
    """Every operation works, from this thread and from another."""
    failures: list[BaseException] = []

    def use() -> None:
        try:
            for operation in OPERATIONS.values():
                operation(connector)
            connector.set(A, b'0')
            assert connector.get(A) == b'0'
        except BaseException as error:
            failures.append(error)

    # First in a thread: this one may hold a lock that is reentrant.
    for _ in range(2):
        thread = threading.Thread(target=use, daemon=True)
        thread.start()
        thread.join(PATIENCE)
        assert not thread.is_alive(), 'the dict is not free'
        use()
    assert failures == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize('kind', ERRORS)
@every_scene
@every_operation
def test_an_exception_at_every_point(
    operation: str,
    scene: str,
    kind: type[BaseException],
) -> None:
    check_interrupted(lambda: None, operation, SCENES[scene], kind)


@pytest.mark.timeout(60)
@every_scene
@every_operation
def test_other_code_at_every_point(operation: str, scene: str) -> None:
    check_intruded(lambda: None, operation, SCENES[scene])


@pytest.mark.timeout(60)
@pytest.mark.parametrize('check', [check_interrupted, check_intruded])
@every_operation
def test_a_lock_that_is_held_across_calls_fails(
    operation: str,
    check: Callable[..., None],
) -> None:
    def fail() -> None:
        raise AssertionError('it is held')

    def make_lock() -> Any:
        return RWLockFair(lambda: ReportingLock(threading.Lock(), fail))

    with pytest.raises(AssertionError):
        check(make_lock, operation)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('kind', [KeyboardInterrupt, IndexError, TypeError])
@pytest.mark.parametrize('operation', STOPPED)
def test_an_exception_inside(
    operation: str,
    kind: type[BaseException],
) -> None:
    # Only a key with a Python __eq__ can raise one there.
    connector = LocalConnector({A: b'0', B: b'0'}, include_data_in_config=True)
    error = kind()

    def interrupt() -> None:
        raise error

    with pytest.raises(kind) as caught:
        STOPPED[operation](connector, interrupt)
    assert caught.value is error
    assert_free(connector)


@pytest.mark.timeout(60)
def test_a_writer_that_gave_up_keeps_no_reader_out() -> None:
    # It left the dict closed, because of a reader that has left since.
    connector = LocalConnector({A: b'0'})
    with SCENES['closed'](connector):
        assert connector.get(A) == b'0'
        assert connector.get_batch([A]) == [b'0']
