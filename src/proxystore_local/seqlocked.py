"""A dict behind a sequence lock, whose critical sections call nothing."""

# The lock is an attribute, `stamp`, which is there while nobody holds it.
#
#     read:   look at it, read, look again; start over if it has changed
#     write:  delete it, write, set another; nothing in between is a call, is
#             a backward jump, or runs Python code (THE RULE: a test checks it)
#
# Why a lock at all, if a GIL lets nobody in? With a GIL each operation is one
# instruction or one call of a function in C, which CPython happens to make
# atomic. The lock does not rely on that, and free-threaded builds need it.
#
# Why the rule? After a call, at a backward jump, and as a function is entered,
# CPython switches threads, runs signal handlers and finalizers, and raises the
# exceptions that other threads set. A lock held there deadlocks with a
# finalizer that wants it, and stays held after Ctrl-C and in a forked child.
# A read holds nothing: nobody waits for it. The hazards:
#
# 1. An exception runs others' code: 3.11 collects garbage as it makes one, and
#    3.14 as it words it. So a key is hashed before.
# 2. So does, on 3.11, to make an object that the collector tracks.
# 3. So does to free a container: finalizers that CPython has put off near the
#    end of the stack run then. So a name, or repeat(), keeps it.
# 4. A release must not fail: to set an attribute that was there takes no
#    memory. It is in no slot, whose deletion is two steps without a GIL.
# 5. No two stamps may be one object, as small ints and constants are.
# 6. An `except` around a call catches what a signal handler raises.
# 7. A read that starts over must not see what it has filled before.
#
# For sequence locks see Linux, Documentation/locking/seqlock.rst; for what can
# still go wrong, "Limits" in docs/pages/lock.md.

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from itertools import repeat
from itertools import starmap
from operator import itemgetter
from os import getpid
from sys import is_finalizing
from time import sleep
from typing import Any

from proxystore_local.guarded import Call
from proxystore_local.guarded import GuardedDict
from proxystore_local.guarded import T

# Seconds to wait before each next try. The longer a thread has waited, the
# sooner it is back. At first readers do not sleep, since a write is short.
_SHORTEST = 0.0001
_WRITE_PAUSES = (0.004, 0.002, 0.001, 0.0005, 0.00025)
_READ_PAUSES = (0.0,) * 8 + _WRITE_PAUSES[1:]


class Seqlock:
    """A sequence lock.

    Attributes:
        stamp: Stands for what the last write has left. It is there while
            nobody holds the lock.
        last: The same, also while somebody reads alone.
        pid: The process whose threads may hold the lock.
        next: The lock in its place, once they cannot release it.
    """

    def __init__(self) -> None:
        self.pid = getpid()
        self.last = self.stamp = float(id(self))  # hazard 5


class SeqlockedDict(GuardedDict):
    """A dict behind a sequence lock, as the comment above explains."""

    __slots__ = ()

    def __init__(self, store: dict[Any, bytes], store_id: str) -> None:
        super().__init__(store, store_id)
        self.seqlock = Seqlock()

    def get_batch(self, keys: tuple[Any, ...]) -> list[bytes | None]:
        # Faster, if no key is missing: it counts no references to the keys.
        if len(keys) > 1:
            run = map(itemgetter(*keys), repeat(self.store, 1))
            lock = self.seqlock
            try:
                stamp = lock.stamp
                (values,) = run
                if lock.stamp is stamp:
                    return [*values]
            except (AttributeError, KeyError):
                pass
        return super().get_batch(keys)

    def shared(self, prepare: Callable[..., Call[T]], *arguments: Any) -> T:
        stamp = self._look()
        function, given = prepare(*arguments)
        result = function(*given)
        if self._look() is stamp:
            return result
        # Writes have disturbed it. They may never stop, so keep them out.
        return self._hold(*prepare(*arguments), write=False)  # hazards 2, 7

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        return self._hold(function, arguments, write=True)

    def _look(self) -> float:
        """Get the stamp, as soon as it is there."""
        pauses = iter(_READ_PAUSES)
        while True:
            try:
                return self.seqlock.stamp  # type: ignore[no-any-return]
            except AttributeError:
                pass
            self._wait(pauses)

    def _hold(
        self, function: Callable[..., T], arguments: Any, write: bool
    ) -> T:
        """Call a function in C while no other thread writes."""
        run = starmap(function, repeat(arguments, 1))  # hazard 3
        pauses = iter(_WRITE_PAUSES if write else _READ_PAUSES)
        while True:
            lock = self.seqlock
            after = lock.last + 1.0 if write else None  # hazard 5
            try:
                del lock.stamp
            except AttributeError:
                pass
            else:
                try:
                    (result,) = run
                    return result
                finally:
                    if after is not None:
                        lock.last = after
                    lock.stamp = lock.last  # hazard 4
            self._wait(pauses)

    def _wait(self, pauses: Iterator[float]) -> None:
        lock = self.seqlock
        if lock.pid != getpid() or is_finalizing():
            # Its holder is not in this child, or is stopped as Python exits.
            # Threads that find this put the same lock in its place.
            self.seqlock = vars(lock).setdefault('next', Seqlock())
        elif pause := next(pauses, _SHORTEST):
            sleep(pause)
