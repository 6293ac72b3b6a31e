"""Exceptions and other code in the middle of every operation do no harm.

CPython lets others in at certain points: there it raises an exception that a
signal handler raised or another thread has set, runs handlers and finalizers,
and switches threads. These tests stop at one after the other; see at_point()
for those that they do not reach.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from collections.abc import Iterator
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
from tests.support.scenes import Scene

# All but the first could be taken for what our code itself runs into.
ERRORS: list[type[BaseException]] = [KeyboardInterrupt, AttributeError]
ERRORS += [IndexError, KeyError, MemoryError, StopIteration, TypeError]
ERRORS += [ValueError]

# Where an operation is interrupted.
PLACES = ['alone', 'beside a writer', 'between writes']

every_place = pytest.mark.parametrize('place', PLACES)
every_operation = pytest.mark.parametrize('operation', OPERATIONS)


def fail() -> None:
    raise AssertionError('the dict is not free')


def do_at_point(
    point: int,
    intrude: Callable[[], object],
    operation: str,
    place: str,
    scene: Scene,
) -> bool:
    """Do an operation, and something else at a point; see at_point()."""
    work = partial(OPERATIONS[operation], scene.connector)
    before: Callable[[], object] = bool
    if place == 'between writes':  # Which change nothing.
        before = partial(scene.connector.set, B, CONTENTS[B])
    return at_point(point, intrude, work, before)


@contextlib.contextmanager
def scene_at(place: str, make_lock: LockMaker = default) -> Iterator[Scene]:
    """Have another thread inside, until the calling one waits a third time."""
    waits = 0

    def wait() -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            scene.leave()

    with Scene(make_lock) as scene:
        if place == 'beside a writer':
            scene.stop('set')
        scene.on_wait = wait
        # Locks of readerwriterlock, which no thread may find held.
        scene.on_block = fail
        yield scene


def check_interrupted(
    operation: str,
    place: str,
    kind: type[BaseException] = KeyboardInterrupt,
    make_lock: LockMaker = default,
) -> None:
    """An interrupted operation completes or has no effect, and frees all."""

    def run(point: int) -> tuple[bool, list[bytes]]:
        """Interrupt at a point: if there was one, and what is stored then."""
        # Not one for all points, which would keep all tracebacks alive.
        error = kind(point)
        raised: list[BaseException] = []

        def interrupt() -> None:
            raise error

        with scene_at(place, make_lock) as scene:
            try:
                found = do_at_point(point, interrupt, operation, place, scene)
                assert not found, 'was swallowed'
            except kind as caught:
                raised.append(caught)
            assert raised in ([], [error])
            scene.leave()
            stored = sorted(scene.store.values())
            assert_free(scene.connector)
        return bool(raised), stored

    _, whole = run(0)
    _, nothing = run(1)  # At the first point nothing is done yet.
    for point in itertools.count(2):
        interrupted, stored = run(point)
        assert stored in (nothing, whole)
        if not interrupted:
            break


def check_intruded(
    operation: str,
    place: str,
    make_lock: LockMaker = default,
) -> None:
    """Other code finds the dict free, in this thread and in others."""
    for point in itertools.count(1):
        with scene_at(place, make_lock) as scene:

            def intrude(scene: Scene = scene) -> None:
                scene.leave()
                assert_free(scene.connector)

            found = do_at_point(point, intrude, operation, place, scene)
            scene.leave()
            assert_free(scene.connector)
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
    check_interrupted(operation, place, kind)


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
