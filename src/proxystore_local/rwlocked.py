"""A dict behind a lock of `readerwriterlock`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeAlias

from readerwriterlock import rwlock

from proxystore_local.guarded import Call
from proxystore_local.guarded import GuardedDict
from proxystore_local.guarded import T

RWLock: TypeAlias = (
    rwlock.RWLockFair
    | rwlock.RWLockFairD
    | rwlock.RWLockRead
    | rwlock.RWLockReadD
    | rwlock.RWLockWrite
    | rwlock.RWLockWriteD
)
"""A lock that a connector takes in place of its own."""


class RWLockedDict(GuardedDict):
    """A dict behind a lock of `readerwriterlock`, with all its hazards."""

    __slots__ = ()

    def shared(self, prepare: Callable[..., Call[T]], *arguments: Any) -> T:
        function, given = prepare(*arguments)
        with self.rwlock.gen_rlock():
            return function(*given)

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        with self.rwlock.gen_wlock():
            return function(*arguments)
