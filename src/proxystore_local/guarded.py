"""A dict and its reader-writer lock, whose critical sections call nothing."""

# The problem: a lock is usually acquired by one call and released by another.
# Right after a call, at a backward jump, and when a Python function is
# entered, CPython lets others in: it switches threads, runs signal handlers,
# raises exceptions that other threads have set, and collects garbage, which
# runs finalizers. So all of these happen while the lock is held. A finalizer
# that needs the lock of a Store, whose holder waits for this lock, deadlocks;
# a thread that is switched away makes all others queue; an exception between
# two calls leaves the lock held.
#
# What does not work: a reentrant lock helps only a thread that meets itself.
# Signals can be blocked, finalizers and thread switches cannot. Locks acquired
# before a fork deadlock with those that others acquire there. `try` and `with`
# do not cover the step between acquire() and their first instruction.
#
# The solution: a critical section is the instructions between
#
#     read:   acquire: readers += (None,)   release: del readers[0]
#     write:  acquire: del gate[1]          release: gate += (None,)
#
# and THE RULE is that none of them is a call or a backward jump, or runs
# Python code. Then, with a GIL, nothing happens between them: no thread, fork,
# finalizer or signal handler ever finds the lock held. A test reads the
# bytecode of every section (tests/concurrency/test_sections.py). Subscripts,
# `in` and `del` work on one key; any other operation is a function in C, run
# by unpacking an iterator over its result (see shared()).
#
# Without a GIL threads wait for each other, but still nobody else's Python
# code runs inside:
#
# - `readers` has one item for each reader inside. A reader adds its item, and
#   reads only if the dict is not `closed` then.
# - `gate` has a second item while nobody writes. A writer deletes it (an
#   IndexError says that another writer has done so), sets `closed`, and writes
#   only if there are no `readers` then.
# - The lock inside the list orders the reader's `+=` and the writer's `+= ()`,
#   which adds nothing. If the reader's comes first, the writer finds the
#   reader; else the reader finds the dict closed.
#
# Whoever cannot go on releases, sleeps, and starts over. A writer that found
# readers leaves the dict closed meanwhile, so that no more come and it does
# not starve. If it does not come back, a reader opens the dict.
#
# What else would run Python code inside comes before or after:
#
# - The exception of a bad key (3.11 collects garbage as it allocates one, 3.14
#   as it formats the message). So a key is hashed before, and a miss is found
#   by `in`.
# - On 3.11, the allocation of any object that the collector tracks.
# - Freeing a container: near the end of the stack, CPython puts off finalizers
#   till then. So `calls` and `stores` have names.
#
# Nor may a release fail: `del` does not allocate while one reader is inside
# (more there are only without a GIL, where lists shrink in place), and `gate`
# has room for its second item.
#
# The holes that remain are line tracers, which run between two lines of a
# section, keys and values that run Python code of their own, and the end of
# the stack: see "Limits" in docs/pages/lock.md. That CPython lets nobody in
# elsewhere is how it works, not a promise.

from __future__ import annotations

from collections.abc import Callable
from itertools import starmap
from operator import itemgetter
from sys import is_finalizing
from sys import version_info
from time import sleep
from typing import Any
from typing import TypeVar

T = TypeVar('T')

# `key in _NOTHING` is false, or raises TypeError if the key is not hashable.
_NOTHING: dict[Any, Any] = {}

# Seconds to sleep before another try: each slows down the thread inside. A
# writer that found readers keeps all others out meanwhile, so it comes back
# sooner, and then waits twice as long each time.
_PAUSE = 0.002
_SOON = 0.0001


class DictGuard:
    """What can be done with a dict that threads share, each at one moment.

    Subclasses say how to run a function `shared` or `exclusive`.
    """

    __slots__ = ('__weakref__', 'store', 'store_id')

    store_id: str  # Identifies the data in this process.
    lock: object = None  # If it is one that a user has chosen.

    def __init__(self, store: dict[Any, bytes]) -> None:
        self.store = store

    def renew(self) -> None:
        """Replace the lock, in a forked child: its holders are not there."""

    def shared(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in C that reads, beside others that read."""
        raise NotImplementedError

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function in C that writes, alone."""
        raise NotImplementedError

    def get(self, key: Any) -> bytes | None:
        """Get the value of a key, or `None`."""
        return self.shared(self.store.get, key)

    def exists(self, key: Any) -> bool:
        """Check if there is a key."""
        return self.shared(self.store.__contains__, key)

    def set(self, key: Any, value: bytes) -> None:
        """Set the value of a key."""
        self.exclusive(self.store.__setitem__, key, value)

    def evict(self, key: Any) -> None:
        """Delete a key, if it is there."""
        self.exclusive(self.store.pop, key, None)

    def get_batch(self, keys: tuple[Any, ...]) -> list[bytes | None]:
        """Get the values of many keys at one moment."""
        values: list[bytes | None] = []
        self.shared(values.extend, map(self.store.get, keys))
        return values

    def put_batch(self, items: dict[Any, bytes]) -> None:
        """Set the values of many new keys at one moment."""
        try:
            self.exclusive(self.store.update, items)
        except MemoryError:
            # Room for some was found, and none for others.
            for key in items:
                self.evict(key)
            raise

    def snapshot(self) -> dict[Any, bytes]:
        """Copy the dict as it is at one moment."""
        copy: dict[Any, bytes] = {}
        self.shared(copy.update, self.store)
        return copy

    def __len__(self) -> int:
        return self.shared(len, self.store)


class GuardedDict(DictGuard):
    """A dict and its reader-writer lock, as the comment above explains."""

    # What has a section of its own, for speed, tries once and leaves it to
    # DictGuard to wait (not by super(), which costs 5 % of a get on 3.15).

    __slots__ = ('_closed', '_gate', '_readers')

    def __init__(self, store: dict[Any, bytes]) -> None:
        super().__init__(store)
        self.renew()

    def renew(self) -> None:
        self._gate: list[None] = [None, None]
        self._readers: list[None] = []
        # Changed only by who has taken the second item of the gate.
        self._closed = False

    def get(self, key: Any) -> bytes | None:
        key in _NOTHING  # noqa: B015
        readers = self._readers
        readers += (None,)
        try:
            if not self._closed:
                store = self.store
                if key in store:
                    return store[key]
                return None
        finally:
            del readers[0]
        return DictGuard.get(self, key)

    def exists(self, key: Any) -> bool:
        key in _NOTHING  # noqa: B015
        readers = self._readers
        readers += (None,)
        try:
            if not self._closed:
                return key in self.store
        finally:
            del readers[0]
        return DictGuard.exists(self, key)

    def set(self, key: Any, value: bytes) -> None:
        key in _NOTHING  # noqa: B015
        gate = self._gate
        readers = self._readers
        try:
            del gate[1]
        except IndexError:
            return DictGuard.set(self, key, value)
        try:
            self._closed = True
            readers += ()
            if not readers:
                self.store[key] = value
                self._closed = False
                return None
        finally:
            gate += (None,)
        return DictGuard.set(self, key, value)

    def evict(self, key: Any) -> None:
        key in _NOTHING  # noqa: B015
        gate = self._gate
        readers = self._readers
        try:
            del gate[1]
        except IndexError:
            return DictGuard.evict(self, key)
        try:
            self._closed = True
            readers += ()
            if not readers:
                if key in self.store:
                    del self.store[key]
                self._closed = False
                return None
        finally:
            gate += (None,)
        return DictGuard.evict(self, key)

    def get_batch(self, keys: tuple[Any, ...]) -> list[bytes | None]:
        hash(keys)
        # itemgetter() takes a quarter to a third less time, if no key is
        # missing. On 3.11 its exception would let the collector in.
        if version_info >= (3, 12) and len(keys) > 1:
            stores = (self.store,)
            run = map(itemgetter(*keys), stores)
            readers = self._readers
            try:
                readers += (None,)
                try:
                    if not self._closed:
                        (values,) = run
                        return [*values]
                finally:
                    del readers[0]
            except KeyError:
                pass
        return DictGuard.get_batch(self, keys)

    def shared(self, function: Callable[..., T], *arguments: Any) -> T:
        calls = (arguments,)
        run = starmap(function, calls)
        pause = 0.0
        while True:
            readers = self._readers
            readers += (None,)
            try:
                if not self._closed:
                    (result,) = run
                    return result
            finally:
                del readers[0]
            drained = not readers
            self._wait(pause)
            if pause and drained and not self._readers:
                # No writer has come for a whole pause: open.
                gate = self._gate
                try:
                    del gate[1]
                except IndexError:
                    continue
                try:
                    self._closed = False
                finally:
                    gate += (None,)
            pause = _PAUSE

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        calls = (arguments,)
        run = starmap(function, calls)
        pause = 0.0
        while True:
            gate, readers = self._gate, self._readers
            longer = 2 * pause or _SOON
            try:
                del gate[1]
            except IndexError:
                longer = _PAUSE
            else:
                try:
                    self._closed = True
                    readers += ()
                    if not readers:
                        (result,) = run
                        self._closed = False
                        return result
                finally:
                    gate += (None,)
            self._wait(pause)
            pause = min(longer, _PAUSE)

    def _wait(self, pause: float) -> None:
        # The lock may be a new one then: see below, or there was a fork.
        sleep(pause)
        if is_finalizing():
            # All other threads are stopped, without a GIL maybe inside.
            self.renew()
