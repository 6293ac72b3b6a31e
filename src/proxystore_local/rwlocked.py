"""A dict that is guarded by a lock of `readerwriterlock`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeAlias

from readerwriterlock import rwlock

from proxystore_local.guarded import DictGuard
from proxystore_local.guarded import T

RWLock: TypeAlias = (
    rwlock.RWLockFair
    | rwlock.RWLockFairD
    | rwlock.RWLockRead
    | rwlock.RWLockReadD
    | rwlock.RWLockWrite
    | rwlock.RWLockWriteD
)


class RWLockedDict(DictGuard):
    """A dict and a lock of `readerwriterlock`; guarded.py has its hazards."""

    def __init__(self, store: dict[Any, bytes], lock: RWLock) -> None:
        super().__init__(store)
        self.lock: Any = lock  # The classes have no typed base in common.

    def shared(self, function: Callable[..., T], *arguments: Any) -> T:
        with self.lock.gen_rlock():
            return function(*arguments)

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        with self.lock.gen_wlock():
            return function(*arguments)
