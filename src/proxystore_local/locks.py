"""The lock of a connector, and which dict has which lock."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import count
from itertools import repeat
from itertools import takewhile
from operator import attrgetter
from operator import call
from operator import methodcaller
from threading import get_ident
from time import monotonic
from time import sleep
from types import SimpleNamespace
from typing import Any
from typing import get_args
from typing import Protocol
from typing import TypeAlias
from typing import TypeVar

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

ArgumentT = TypeVar('ArgumentT')
ResultT = TypeVar('ResultT')

try:
    threading.RLock().release()
except RuntimeError as error:
    _NOT_HELD = error.args


def _pass_on(error: RuntimeError) -> None:
    """Raise an error of `release()` again, unless the lock was not held.

    A RuntimeError may also be what a signal handler raises.
    """
    if error.args != _NOT_HELD:
        raise error


# After a writer had to wait for readers, readers wait at the gate, rather than
# pass it, for this many times as long, so that writers lose a tenth of their
# time at most, as BRAVO has it; but for no more than so many seconds.
_INHIBITED = 9.0
_LONGEST_INHIBITED = 0.1

# Without a GIL, threads that use the same objects at once slow each other down
# by far more than they gain, since each use counts references. So a thread
# that finds the gate taken first sleeps for so many seconds, tries the gate a
# few times, and does so a few times over. A reader does it once, and if that
# did not help, the next so many readers do not.
_BACKOFF = (
    () if getattr(sys, '_is_gil_enabled', lambda: True)() else (2e-3,) * 4
)
_TRIES = 3
_READS_WITHOUT_BACKOFF = 100


class _Hints:
    """What threads tell each other about a lock without having its gate.

    All of it is about speed and fairness.

    Attributes:
        writer_waits: Readers should not pass the gate.
        inhibited_until: Nor before this, in seconds of the monotonic clock.
        reads_without_backoff: Readers who need not sleep first.
    """

    __slots__ = ('inhibited_until', 'reads_without_backoff', 'writer_waits')

    def __init__(self) -> None:
        self.writer_waits = False
        self.inhibited_until = 0.0
        self.reads_without_backoff = 0


class BigReaderLock:
    """Reader-writer lock that makes a read about as cheap as a mutex does.

    There is a gate, a mutex that readers and writers take alike, since one
    mutex that is free costs less than any count of readers. A reader who
    finds the gate taken by another reader takes a lock of its own instead,
    and reads beside it. A writer takes the gate, closes the way past it, and
    waits until every reader's own lock was free once.

    It runs an operation for its caller, rather than being held by the caller,
    and gives every operation these guarantees: an exception that a signal
    handler raises, at whatever point, leaves the lock free; a finalizer or
    signal handler that interrupts an operation can itself use the lock, to
    read or to write; and a forked child finds the lock free.

    Source: the big-reader lock of Linux 2.4 (brlock), also known as
    distributed reader-writer lock: a lock for each reader, and writers take
    them all. That readers bypass another lock, and how a writer that had to
    wait stops them, is from BRAVO (Dice and Kogan, Biased Locking for
    Reader-Writer Locks, USENIX ATC 2019).
    """

    # Rules that all methods keep:
    #
    # 1. Who reads has the gate; or has its own lock, which is in _entered, and
    #    found _own to be that dict after it took the lock. Who writes has the
    #    gate, has set _own to None, and has then found each lock in _entered
    #    free once. So a reader who takes one of these later finds _own None.
    # 2. A reader who enters its lock too late for the writer finds _own None
    #    as well: to enter a lock and to copy all are calls on one dict, which
    #    has a lock for them inside (or the GIL).
    # 3. A thread that blocks on the gate holds no lock of ours. So whoever
    #    has the gate finds every reader's lock free as soon as the reads
    #    under way are over.
    # 4. An interrupt (an exception from a signal handler, or set by another
    #    thread) comes right after a call returns, when a Python function is
    #    entered or at a backward jump, or from a call that blocks; nowhere
    #    else. So a lock is taken by a call inside the try block whose finally
    #    or except clause gives it back by its first call. A `with` statement
    #    would not do: a handler may raise between __enter__ and the body, see
    #    https://github.com/python/cpython/issues/148874. When acquire() was
    #    interrupted, release() tells by an error if the lock was not taken;
    #    a thread that had it already has taken it once more, without blocking.

    def __init__(self) -> None:
        self._gate = threading.RLock()
        # Bound once, since binding takes a good part of an uncontended call.
        self._acquire = self._gate.acquire
        self._release = self._gate.release
        # The own lock of each thread that passed the gate since a writer last
        # waited for them, by its identity. Another thread may have that later,
        # and then the lock.
        self._entered: dict[int, Any] = {}
        # The same, or None while somebody writes.
        self._own: dict[int, Any] | None = self._entered
        self._hints = _Hints()
        self._number = next(_numbers)
        _locks.add(weakref.ref(self, _locks.discard))

    def shared(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        """Run an operation that only reads, beside others that do.

        Args:
            operation: Callable that reads. It may be called again if a
                finalizer or signal handler uses the lock in the middle of it.
            argument: What to call it with.

        Returns:
            What the operation returns.
        """
        taken = True  # Unless acquire() returns and says otherwise.
        try:
            taken = self._acquire(False)
            if taken:
                return operation(argument)
        finally:
            if taken:
                try:
                    self._release()
                except RuntimeError as error:
                    _pass_on(error)
        return self._shared_beside(operation, argument)

    def exclusive(
        self,
        operation: Callable[..., ResultT],
        *arguments: Any,
    ) -> ResultT:
        """Run an operation that writes, alone.

        Args:
            operation: Callable that writes.
            arguments: What to call it with.

        Returns:
            What the operation returns.
        """
        own = None
        try:
            if not self._acquire(False):
                self._wait_to_write()
            own = self._own  # None inside another write of our own.
            self._own = None
            if own is None or own.copy():
                self._wait_for_readers()
                self._entered = {}
            return operation(*arguments)
        finally:
            if own is not None:
                self._own = self._entered
            try:
                self._release()
            except RuntimeError as error:
                _pass_on(error)

    def _shared_beside(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        """Run an operation that only reads, since the gate is taken."""
        hints = self._hints
        if _BACKOFF or hints.inhibited_until:
            taken = True
            try:
                taken = self._hold_back()
                if taken:
                    return operation(argument)
            finally:
                if taken:
                    try:
                        self._release()
                    except RuntimeError as error:
                        _pass_on(error)
        ident = get_ident()
        while True:
            own = self._own
            lock = None
            try:
                if own is None or hints.writer_waits:
                    try:
                        self._wait_for_gate()
                        lock = self._entered.setdefault(
                            ident,
                            threading.RLock(),
                        )
                        lock.acquire()
                    finally:
                        # Who waits at the gate shall read beside us.
                        try:
                            self._release()
                        except RuntimeError as error:
                            _pass_on(error)
                    result = operation(argument)
                    entered = True
                else:
                    lock = own.get(ident)
                    if lock is None:
                        lock = own.setdefault(ident, threading.RLock())
                    lock.acquire()
                    entered = self._own is own
                    if entered:
                        result = operation(argument)
            except BaseException:
                if lock is not None:
                    try:
                        lock.release()
                    except RuntimeError as error:
                        _pass_on(error)
                raise
            try:
                lock.release()
            except RuntimeError as error:
                _pass_on(error)
                # An operation inside this one let go of the lock, see
                # _let_go(): what was read may be of two moments.
                break
            if entered:
                return result
        # Not beside others, so that nobody makes us let go once more.
        try:
            self._wait_for_gate()
            return operation(argument)
        finally:
            try:
                self._release()
            except RuntimeError as error:
                _pass_on(error)

    def _hold_back(self) -> bool:
        """Wait for the gate for a while, before passing it.

        Returns:
            If the gate is taken now.
        """
        hints = self._hints
        remaining = hints.inhibited_until - monotonic()
        if remaining > 0:
            self._let_go()
            return self._acquire(True, remaining)
        hints.inhibited_until = 0.0
        if not _BACKOFF:
            return False
        if hints.reads_without_backoff > 0:
            hints.reads_without_backoff -= 1
            return False
        sleep(_BACKOFF[0])
        hints.reads_without_backoff = _READS_WITHOUT_BACKOFF
        if any(map(self._acquire, repeat(False, _TRIES))):
            hints.reads_without_backoff = 0
            return True
        return False

    def _wait_to_write(self) -> None:
        """Take the gate, which another thread has, before those who read."""
        hints = self._hints
        try:
            hints.writer_waits = True
            self._wait_for_gate()
        finally:
            hints.writer_waits = False

    def _wait_for_gate(self) -> None:
        """Take the gate, which another thread has."""
        self._let_go()
        for seconds in _BACKOFF:
            sleep(seconds)
            if any(map(self._acquire, repeat(False, _TRIES))):
                return
        self._acquire()

    def _wait_for_readers(self, patience: float = -1) -> bool:
        """Wait, at the gate, until each reader's own lock was free once.

        Args:
            patience: Seconds to wait for each reader; -1 is for ever.

        Returns:
            If it came to that.
        """
        start = monotonic()
        waited = False
        self._let_go()
        for lock in self._entered.copy().values():
            taken = True
            try:
                taken = lock.acquire(False)
                if not taken:
                    waited = taken = True
                    taken = lock.acquire(True, patience)
            finally:
                if taken:
                    try:
                        lock.release()
                    except RuntimeError as error:
                        _pass_on(error)
            if not taken:
                return False
        if waited:
            end = monotonic()
            inhibited = min(_INHIBITED * (end - start), _LONGEST_INHIBITED)
            self._hints.inhibited_until = end + inhibited
        return True

    def _close(self, patience: float) -> bool:
        """Keep all others out, at the gate, until a fork is over.

        Args:
            patience: Seconds to wait for each reader; -1 is for ever.

        Returns:
            If it came to that.
        """
        if self._own is not None:
            reopen = partial(setattr, self, '_own', self._entered)
            _held.append(SimpleNamespace(release=reopen))
            self._own = None
        return self._wait_for_readers(patience)

    def _let_go(self) -> None:
        """Let go of the calling thread's own lock.

        It holds that if this is called inside a read of its own, which a
        finalizer or a signal handler has interrupted. The read notices, and
        starts over.
        """
        lock = self._entered.get(get_ident())
        if lock is not None:
            try:
                # As often as it is held: the last release raises.
                deque(map(call, repeat(lock.release)), maxlen=0)
            except RuntimeError as error:
                _pass_on(error)


# All locks, numbered as they are made.
_locks: set[weakref.ref[BigReaderLock]] = set()
_numbers = count()

# A thread that forks holds _forking meanwhile, and the gates of all locks in
# _taken, which it has closed. What undoes that is in _held, above a marker:
# _releases, whenever it is asked, pops and undoes one thing, and is true for a
# marker, where any() stops.
_forking = threading.RLock()
_taken: set[BigReaderLock] = set()
_held: list[Any] = []
_MARKER = SimpleNamespace(release=partial(bool, 1))
_releases = map(methodcaller('release'), iter(_held.pop, None))

# Seconds that a thread which forks waits for a lock while it holds others.
_FORK_PATIENCE = 1.0


def _before_fork() -> None:
    """Take all locks, so that no operation is half done in the child."""
    interrupt = None
    _held.append(_MARKER)
    while True:
        try:
            # Not a loop of ours, since an interrupt at its backward jump may
            # be outside of the try block, depending on the Python.
            deque(iter(_take_more, False), maxlen=0)
            break
        except BaseException as error:
            # Raised when all are taken, since the fork goes on without us.
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _take_more() -> bool:
    """Take the locks that are not taken yet, the oldest first.

    A thread inside an operation on a later lock may need an earlier one for a
    finalizer. So after a while let go of all and start anew.

    Returns:
        If there may be more.
    """
    locks = {lock for key in [*_locks] if (lock := key())} - _taken
    for lock in sorted(locks, key=attrgetter('_number')):
        patience = _FORK_PATIENCE if _taken else -1
        held = len(_held)
        lock._let_go()
        acquire = methodcaller('acquire', True, patience)
        _held.extend(takewhile(acquire, (lock._gate,)))
        if len(_held) > held and lock._close(patience):
            _taken.add(lock)
        else:
            # Wait for this one first, holding none. Or else its holder, who
            # needs one that we let go of, would find that taken again.
            lock._number = -next(_numbers)
            any(_releases)
            _held.append(_MARKER)
            _taken.clear()
            return True
    return bool(locks)


def _after_fork_in_child() -> None:
    any(_releases)
    # Made anew rather than changed: on a free-threaded build the child may
    # find it locked, by a thread that it does not have.
    global _locks  # noqa: PLW0603
    _locks = set()
    for lock in _taken:
        _locks.add(weakref.ref(lock, _locks.discard))
        lock._entered = {}
        lock._hints = _Hints()
        if lock._own is not None:
            lock._own = lock._entered
    _taken.clear()


if hasattr(os, 'register_at_fork'):
    # What is registered later runs earlier before a fork and later after it.
    # A signal that arrives during the fork is handled right after it: so what
    # must happen there is done by calls that no interrupt can come before.
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=partial(any, _releases),
        after_in_child=_after_fork_in_child,
    )
    os.register_at_fork(after_in_parent=_taken.clear)
    os.register_at_fork(
        before=_forking.acquire,
        after_in_parent=_forking.release,
        after_in_child=_forking.release,
    )


ReaderWriterLock: TypeAlias = (
    BigReaderLock
    | RWLockFair
    | RWLockFairD
    | RWLockRead
    | RWLockReadD
    | RWLockWrite
    | RWLockWriteD
)
"""The locks that a connector accepts: ours and those of `readerwriterlock`.

Those of `readerwriterlock` differ in who goes first when readers and writers
wait: RWLockFair takes turns, RWLockRead prefers readers and RWLockWrite
writers. The names that end in D are the downgradable forms of the same.
"""


class _Runner(Protocol):
    """The seam between a connector and its lock."""

    def shared(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT: ...

    def exclusive(
        self,
        operation: Callable[..., ResultT],
        *arguments: Any,
    ) -> ResultT: ...


class _RWLockRunner:
    """Runs operations under a lock of `readerwriterlock`."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def shared(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        with self._lock.gen_rlock():
            return operation(argument)

    def exclusive(
        self,
        operation: Callable[..., ResultT],
        *arguments: Any,
    ) -> ResultT:
        with self._lock.gen_wlock():
            return operation(*arguments)


class GuardedDict:
    """A dict together with the lock that all its users share.

    Everything that is done with the dict is done by its runner, one operation
    at a call. A connector holds on to the GuardedDict of its dict; nothing
    else does.

    Args:
        store: Dict to guard.
        lock: Lock to guard it with.
    """

    __slots__ = ('__weakref__', 'lock', 'runner', 'store')

    def __init__(
        self,
        store: dict[Any, bytes],
        lock: ReaderWriterLock,
    ) -> None:
        self.store = store
        self.lock = lock
        self.runner: _Runner = (
            lock if isinstance(lock, BigReaderLock) else _RWLockRunner(lock)
        )


# The registry is changed under its lock. A GuardedDict keeps its dict alive,
# so as long as it has an entry, the identity of the dict is not another's.
_registry_lock = BigReaderLock()
_registry: weakref.WeakValueDictionary[int, GuardedDict] = (
    weakref.WeakValueDictionary()
)
# What a thread is about to enter for a dict, in case a finalizer interrupts it
# and asks for the same dict.
_offers: dict[tuple[int, int], weakref.ref[GuardedDict]] = {}


def guard(
    store: dict[Any, bytes],
    lock: ReaderWriterLock | None = None,
) -> GuardedDict:
    """Get the guarded form of a dict: the same for all who ask.

    Args:
        store: Dict to guard.
        lock: Lock to guard it with. If not specified, the lock that the dict
            already has, or else a new BigReaderLock.

    Returns:
        The dict with its lock.

    Raises:
        TypeError: If `store` is not a dict or `lock` is not a lock that we
            accept.
        ValueError: If the dict already has another lock.
    """
    if not isinstance(store, dict):
        raise TypeError(
            f'store_dict must be a dict, not {type(store).__name__}.',
        )
    if lock is not None and not isinstance(lock, get_args(ReaderWriterLock)):
        names = [kind.__name__ for kind in get_args(ReaderWriterLock)]
        raise TypeError(
            f'lock must be an instance of {names[0]}, or of a lock of '
            f'readerwriterlock.rwlock ({", ".join(names[1:])}), not {lock!r}.',
        )
    guarded = _registry_lock.exclusive(_find_or_enter, store, lock)
    if lock is not None and guarded.lock is not lock:
        raise ValueError(
            'store_dict is already used by a connector with another lock '
            f'({guarded.lock!r}): connectors on one dict share one lock. '
            'Pass the same lock object to each, or none.',
        )
    return guarded


def _find_or_enter(
    store: dict[Any, bytes],
    lock: ReaderWriterLock | None,
) -> GuardedDict:
    found = _registry.get(id(store))
    if found is not None:
        return found
    offer = GuardedDict(store, BigReaderLock() if lock is None else lock)
    place = (threading.get_ident(), id(store))
    try:
        reference = weakref.ref(offer)
        earlier = _offers.setdefault(place, reference)()
        if earlier is None:
            # Left behind when the thread was interrupted in here.
            _offers[place] = reference
        else:
            offer = earlier
        found = _registry.get(id(store))
        if found is None:
            _registry[id(store)] = found = offer
        return found
    finally:
        _offers.pop(place, None)
