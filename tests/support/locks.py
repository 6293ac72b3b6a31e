"""The locks that a connector takes, and locks that do too little."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any
from typing import TypeAlias

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

from proxystore_local.rwlocked import RWLock

# Seconds after which a thread that nobody answers gives up.
PATIENCE = int(os.environ.get('TEST_PATIENCE', '30'))

LockMaker: TypeAlias = Callable[..., RWLock | None]


def default(lock_factory: object = None) -> None:
    """Choose the connector's own lock, which is made of no other."""


# How to make what a connector takes as its lock.
LOCKS: dict[str, LockMaker] = {
    'default': default,
    'RWLockFair': RWLockFair,
    'RWLockFairD': RWLockFairD,
    'RWLockRead': RWLockRead,
    'RWLockReadD': RWLockReadD,
    'RWLockWrite': RWLockWrite,
    'RWLockWriteD': RWLockWriteD,
}


class NoLock(RWLockFair):
    """A lock that does nothing: what it guards, threads reach at any time."""

    def gen_rlock(self) -> Any:
        return contextlib.nullcontext()

    def gen_wlock(self) -> Any:
        return contextlib.nullcontext()


class Mutex(RWLockFair):
    """A lock that lets only one thread inside, be it a reader or a writer."""

    def __init__(self, lock_factory: Callable[[], Any]) -> None:
        self.mutex = lock_factory()

    def gen_rlock(self) -> Any:
        return self.mutex

    def gen_wlock(self) -> Any:
        return self.mutex


class ReportingLock:
    """A lock that reports a thread that is about to block on it.

    Args:
        lock: The lock that does the work.
        report: Called, before it blocks, by a thread that has to.
    """

    def __init__(self, lock: Any, report: Callable[[], object]) -> None:
        self._lock = lock
        self._report = report
        self.release = lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if not blocking:
            return False
        self._report()
        return bool(self._lock.acquire(blocking, timeout))

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
