"""A dict that is guarded by a lock of `readerwriterlock`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeAlias
from typing import TypeVar

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

from proxystore_local.guarded import DictGuard

ResultT = TypeVar('ResultT')

RWLock: TypeAlias = (
    RWLockFair
    | RWLockFairD
    | RWLockRead
    | RWLockReadD
    | RWLockWrite
    | RWLockWriteD
)
"""The locks of `readerwriterlock`.

They differ in who goes first when readers and writers wait: with RWLockFair
they take turns, RWLockRead prefers readers and RWLockWrite writers. The names
that end in D are the downgradable forms of the same.
"""


class RWLockedDict(DictGuard):
    """A dict that is guarded by a lock of `readerwriterlock`.

    It has the hazards of a lock that is held across calls: see the comment at
    the top of `proxystore_local/guarded.py`.

    Args:
        store: Dict to guard. The dict itself is used, not a copy.
        lock: Lock to guard it with.
    """

    __slots__ = ('lock',)

    def __init__(self, store: dict[Any, bytes], lock: RWLock) -> None:
        super().__init__(store)
        # Any, as the classes have no base that is typed in common.
        self.lock: Any = lock

    def shared(
        self, operation: Callable[..., ResultT], *arguments: Any
    ) -> ResultT:
        """Run an operation that reads, beside others that read."""
        with self.lock.gen_rlock():
            return operation(*arguments)

    def exclusive(
        self, operation: Callable[..., ResultT], *arguments: Any
    ) -> ResultT:
        """Run an operation that writes, alone."""
        with self.lock.gen_wlock():
            return operation(*arguments)
