"""The locks that a connector takes, and locks that do too little."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any
from typing import get_args
from typing import TypeAlias

from readerwriterlock.rwlock import RWLockFair

from proxystore_local.rwlocked import RWLock
from proxystore_local.seqlocked import Seqlock

# Seconds after which a thread that nobody answers gives up.
PATIENCE = int(os.environ.get('TEST_PATIENCE', '30'))

LockMaker: TypeAlias = Callable[..., RWLock | None]


def default(lock_factory: object = None) -> None:
    """Choose the connector's own lock, which is made of no other."""


# How to make what a connector takes as its lock.
LOCKS: dict[str, LockMaker] = {
    'default': default,
    **{kind.__name__: kind for kind in get_args(RWLock)},
}


class NoLock(RWLockFair):
    """A lock that does nothing: what it guards, threads reach at any time."""

    def gen_rlock(self) -> Any:
        return contextlib.nullcontext()

    gen_wlock = gen_rlock


class Mutex(RWLockFair):
    """A lock that lets only one thread inside, be it a reader or a writer."""

    def __init__(self, lock_factory: Callable[[], Any]) -> None:
        self.mutex = lock_factory()

    def gen_rlock(self) -> Any:
        return self.mutex

    gen_wlock = gen_rlock


# Sequence locks, each with one fault.
SAME = 1.0


class LetsTwoWritersIn(Seqlock):
    def __delattr__(self, name: str) -> None:
        vars(self).pop(name, None)


class HidesWritesUnderWay(Seqlock):
    def __getattr__(self, name: str) -> float:
        return self.last


class HidesWritesThatAreOver(Seqlock):
    def __setattr__(self, name: str, value: float) -> None:
        vars(self)[name] = value if name == 'pid' else SAME


class IsNotReleased(Seqlock):
    def __init__(self) -> None:
        vars(self).update(last=SAME, stamp=SAME, pid=os.getpid())

    def __setattr__(self, name: str, value: float) -> None:
        pass


class ReportingLock:
    """A lock that reports a thread that is about to block on it.

    Args:
        report: Called, before it blocks, by a thread that has to.
    """

    def __init__(self, report: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._report = report
        self.release = self._lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> Any:
        if self._lock.acquire(blocking=False):
            return True
        self._report()
        return self._lock.acquire(blocking, timeout)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
