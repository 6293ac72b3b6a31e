"""How long threads wait before they pass the gate, or block on it.

On a clock that stands still unless somebody sleeps or waits.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import locks
from tests.harness import PATIENCE

BACKOFF = (1.0, 2.0, 4.0, 8.0)


class World:
    """The clock, and what the main thread does while it has to wait.

    Attributes:
        now: Seconds on the clock.
        looked: How often somebody has looked at it.
        slept: For how long each sleep was.
        waited: With which timeout each lock that was taken was waited for.
        meanwhile: Called when the main thread sleeps or waits.
    """

    def __init__(self) -> None:
        self.now = 64.0
        self.looked = 0
        self.slept: list[float] = []
        self.waited: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def monotonic(self) -> float:
        self.looked += 1
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self.meanwhile()

    def make_lock(self) -> WatchedLock:
        return WatchedLock(self)


class WatchedLock:
    """An RLock that tells its world of what is done with it."""

    def __init__(self, world: World) -> None:
        lock = threading.RLock()
        self._world = world
        self._acquire = lock.acquire
        self.release = lock.release
        self.tries = 0
        self.taken = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.tries += not blocking
        if not self._acquire(False):
            if not blocking:
                return False
            self._world.waited.append(timeout)
            self._world.meanwhile()
            if not self._acquire(False):
                assert timeout >= 0, 'it would wait for ever'
                self._world.now += timeout
                return False
        self.taken += 1
        return True


class Inside:
    """Another thread that is inside the lock, until it is told to leave."""

    def __init__(self, lock: BigReaderLock) -> None:
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=lock.shared,
            args=(self._linger, None),
            daemon=True,
        )
        self._thread.start()
        assert self._inside.wait(PATIENCE)

    def _linger(self, _: None) -> None:
        self._inside.set()
        assert self._leave.wait(PATIENCE)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(locks, '_BACKOFF', ())
    monkeypatch.setattr(locks, 'monotonic', world.monotonic)
    monkeypatch.setattr(locks, 'sleep', world.sleep)
    monkeypatch.setattr(
        locks,
        'threading',
        types.SimpleNamespace(RLock=world.make_lock),
    )
    return world


def lock_after_a_wait(world: World, seconds: float) -> BigReaderLock:
    """Make a lock whose last writer has waited for a reader for so long."""
    lock = BigReaderLock()
    # The first has the gate, the second its own lock.
    first, second = Inside(lock), Inside(lock)
    first.leave()

    def meanwhile() -> None:
        world.now += seconds
        second.leave()

    world.meanwhile = meanwhile
    lock.exclusive(len, '')
    assert world.waited == [-1]
    world.waited.clear()
    world.meanwhile = lambda: None
    return lock


def assert_free(lock: BigReaderLock) -> None:
    """Another thread can take the gate."""
    other = Inside(lock)
    assert lock._entered == {}
    other.leave()


# Exact in binary, where they count.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ('now', 'waited', 'inhibited'),
    [(64.0, 2**-8, 9 * 2**-8), (64.0, 1.0, 0.1), (0.25, 1.0, 0.1)],
)
def test_readers_stay_at_the_gate_after_a_writer_waited(
    world: World,
    now: float,
    waited: float,
    inhibited: float,
) -> None:
    world.now = now
    lock = lock_after_a_wait(world, waited)
    other = Inside(lock)
    # It stays for so long, and then passes.
    assert lock.shared(len, 'ab') == 2
    assert world.waited == pytest.approx([inhibited])
    assert list(lock._entered) == [threading.get_ident()]
    # That was that: the next does not even look at the clock.
    world.looked = 0
    for _ in range(2):
        lock.shared(len, '')
    assert len(world.waited) == 1
    assert world.looked <= 1
    other.leave()


@pytest.mark.timeout(60)
@pytest.mark.parametrize('later', [0.0, 1.0])
def test_the_time_at_the_gate_is_over_when_it_is_over(
    world: World,
    later: float,
) -> None:
    lock = lock_after_a_wait(world, 2**-8)
    world.now += 2**-8
    other = Inside(lock)
    world.looked = 0
    world.meanwhile = other.leave
    # It gets the gate, since the other leaves.
    assert lock.shared(len, 'ab') == 2
    assert world.waited == [8 * 2**-8]
    assert_free(lock)
    world.now += 8 * 2**-8 + later
    world.meanwhile = lambda: None
    other = Inside(lock)
    for _ in range(2):
        assert lock.shared(len, 'ab') == 2
    assert world.waited == [8 * 2**-8]
    assert world.looked == 2
    other.leave()


@pytest.mark.timeout(60)
def test_who_stays_at_the_gate_has_let_go_of_the_own_lock(
    world: World,
) -> None:
    # A finalizer reads in the middle of a read under an own lock.
    lock = BigReaderLock()
    other = Inside(lock)
    free: list[bool] = []

    def acquire_the_own_lock() -> None:
        (own,) = lock._entered.values()
        free.append(own.acquire(False))

    def meanwhile() -> None:
        thread = threading.Thread(target=acquire_the_own_lock)
        thread.start()
        thread.join(PATIENCE)
        other.leave()

    def read_inside(_: None) -> None:
        lock._hints.inhibited_until = world.now + 1
        lock.shared(len, '')

    world.meanwhile = meanwhile
    lock.shared(read_inside, None)
    assert world.waited == [1.0]
    assert free == [True]


@pytest.mark.timeout(60)
def test_nobody_stays_if_no_writer_waited(world: World) -> None:
    world.now = 0.5
    lock = BigReaderLock()
    other = Inside(lock)
    lock.shared(len, '')
    assert world.looked == 0
    other.leave()
    for _ in range(2):
        first, second = Inside(lock), Inside(lock)
        first.leave()
        second.leave()
        lock.exclusive(len, '')
    other = Inside(lock)
    world.looked = 0
    lock.shared(len, '')
    assert world.waited == []
    assert world.looked == 0
    other.leave()


@pytest.mark.timeout(60)
def test_a_writer_sleeps_before_it_blocks(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, '_BACKOFF', BACKOFF)
    lock: Any = BigReaderLock()
    other = Inside(lock)
    lock._gate.tries = 0

    def meanwhile() -> None:
        if world.waited:
            other.leave()

    world.meanwhile = meanwhile
    lock.exclusive(len, '')
    assert world.slept == [*BACKOFF]
    assert world.waited == [-1]
    # Once before it sleeps, and three times after each sleep.
    assert lock._gate.tries == 1 + 3 * len(BACKOFF)
    assert_free(lock)


@pytest.mark.timeout(60)
def test_a_writer_sleeps_no_longer_than_it_must(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, '_BACKOFF', BACKOFF)
    lock = BigReaderLock()
    other = Inside(lock)

    def meanwhile() -> None:
        if len(world.slept) == 2:
            other.leave()

    world.meanwhile = meanwhile
    lock.exclusive(len, '')
    assert world.slept == [*BACKOFF[:2]]
    assert world.waited == []
    assert_free(lock)


@pytest.mark.timeout(60)
def test_a_reader_sleeps_once_unless_it_did_not_help(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, '_BACKOFF', BACKOFF)
    lock: Any = BigReaderLock()
    other = Inside(lock)
    lock._gate.tries = 0
    lock.shared(len, '')
    assert world.slept == [BACKOFF[0]]
    assert lock._gate.tries == 1 + 3
    # It did not help, so the next hundred do not sleep.
    for _ in range(100):
        lock.shared(len, '')
    assert world.slept == [BACKOFF[0]]
    lock.shared(len, '')
    assert world.slept == [BACKOFF[0]] * 2
    # Two readers may both take the last of the hundred.
    lock._hints.reads_without_backoff = -1
    lock.shared(len, '')
    assert world.slept == [BACKOFF[0]] * 3
    assert world.waited == []
    # All were under the own lock.
    (own,) = lock._entered.values()
    assert own.taken == 1 + 100 + 1 + 1
    other.leave()


@pytest.mark.timeout(60)
def test_a_reader_sleeps_again_if_it_helped(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(locks, '_BACKOFF', BACKOFF)
    lock = BigReaderLock()
    for sleeps in (1, 2, 3):
        other = Inside(lock)
        world.meanwhile = other.leave
        assert lock.shared(len, 'ab') == 2
        assert len(world.slept) == sleeps
        assert_free(lock)
    assert world.waited == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ('build', 'backoff'),
    [
        ('sys._is_gil_enabled = lambda: True', ()),
        ('vars(sys).pop("_is_gil_enabled", None)', ()),
        ('sys._is_gil_enabled = lambda: False', (0.002,) * 4),
    ],
)
def test_only_builds_without_a_gil_sleep(
    build: str,
    backoff: tuple[float, ...],
) -> None:
    program = f"""
import sys
{build}
from proxystore_local import locks
print(locks._BACKOFF)
"""
    ended = subprocess.run(
        [sys.executable, '-c', program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert ended.stdout.strip() == str(backoff)


def test_a_reader_has_its_own_lock_when_the_time_at_the_gate_is_over(
    world: World,
) -> None:
    lock = BigReaderLock()
    lock._hints.inhibited_until = world.now
    other = Inside(lock)
    assert lock.shared(len, 'abc') == 3
    other.leave()
    assert threading.get_ident() in lock._entered
