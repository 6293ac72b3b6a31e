"""Exceptions and other code in the middle of every operation do no harm.

CPython lets others in at certain points: there it raises an exception that a
signal handler raised or another thread has set, runs handlers and finalizers,
and switches threads. These tests stop at one after the other; see at_point()
for those that they do not reach.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from readerwriterlock.rwlock import RWLockFair

from tests.support.locks import default
from tests.support.locks import LockMaker
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS
from tests.support.points import at_point
from tests.support.scenes import assert_free
from tests.support.scenes import once
from tests.support.scenes import Scene

# All but the first could be taken for what our code itself runs into.
ERRORS: list[type[BaseException]] = [
    KeyboardInterrupt,
    AttributeError,
    IndexError,
    KeyError,
    MemoryError,
    StopIteration,
    TypeError,
    ValueError,
]

# Where an operation is interrupted.
PLACES = ['alone', 'beside a writer', 'between writes']

every_place = pytest.mark.parametrize('place', PLACES)
every_operation = pytest.mark.parametrize('operation', OPERATIONS)


def fail() -> None:
    raise AssertionError('the dict is not free')


def do_at_point(
    point: int,
    operation: str,
    place: str,
    make_lock: LockMaker,
    error: BaseException | None = None,
) -> tuple[bool, list[bytes]]:
    """Do an operation, and raise an error or use the dict at a point of it.

    Returns:
        If there was such a point, see at_point(); and what is stored then.
    """

    def intrude() -> None:
        if error is not None:
            raise error
        scene.leave()
        assert_free(scene.connector)

    with Scene(make_lock) as scene:
        work = partial(OPERATIONS[operation], scene.connector)
        before: Callable[[], object] = bool
        if place == 'beside a writer':
            scene.stop('set')
        if place == 'between writes':  # Which change nothing.
            before = partial(scene.connector.set, B, CONTENTS[B])
        # The writer is inside until this thread waits a third time.
        scene.on_wait = once(bool, bool, scene.leave)
        # Locks of readerwriterlock, which no thread may find held.
        scene.on_block = fail
        try:
            found = at_point(point, intrude, work, before)
            assert not found or error is None, 'was swallowed'
        except BaseException as raised:
            if raised is not error:
                raise
            found = True
        scene.leave()
        stored = sorted(scene.store.values())
        assert_free(scene.connector)
    return found, stored


def check_interrupted(
    operation: str,
    place: str,
    make_lock: LockMaker = default,
    kind: type[BaseException] = KeyboardInterrupt,
) -> None:
    """An interrupted operation completes or has no effect, and frees all."""
    _, whole = do_at_point(0, operation, place, make_lock, kind())
    # At the first point nothing is done yet.
    _, nothing = do_at_point(1, operation, place, make_lock, kind())
    for point in itertools.count(2):
        found, stored = do_at_point(point, operation, place, make_lock, kind())
        assert stored in (nothing, whole)
        if not found:
            break


def check_intruded(
    operation: str,
    place: str,
    make_lock: LockMaker = default,
) -> None:
    """Other code finds the dict free, in this thread and in others."""
    for point in itertools.count(1):
        found, _ = do_at_point(point, operation, place, make_lock)
        if not found:
            break


@pytest.mark.parametrize('kind', ERRORS)
@every_place
@every_operation
def test_an_exception_at_every_point(
    operation: str,
    place: str,
    kind: type[BaseException],
) -> None:
    check_interrupted(operation, place, kind=kind)


@every_place
@every_operation
def test_other_code_at_every_point(operation: str, place: str) -> None:
    check_intruded(operation, place)


@pytest.mark.parametrize('check', [check_interrupted, check_intruded])
@every_operation
def test_a_lock_that_is_held_across_calls_fails(
    operation: str,
    check: Callable[..., None],
) -> None:
    with pytest.raises(AssertionError):
        check(operation, 'alone', make_lock=RWLockFair)
