"""The lock of a connector, and which dict has which lock."""

from __future__ import annotations

import os
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
from time import monotonic
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
    # What tells "this thread does not hold the lock" from a RuntimeError that
    # a signal handler raises.
    _NOT_HELD = error.args

# Readers go back to their own locks after so many reads in a row at the gate,
# but not before so many times as long as the last write had to wait: so that
# writers lose a tenth of their time at most, as BRAVO has it.
_READS_TO_BIAS = 32
_UNBIASED = 9.0


class _Reader:
    """A thread's own lock, as that thread has it and nobody else.

    Attributes:
        key: The same lock as writers have it.
    """

    __slots__ = ('__weakref__', 'acquire', 'key', 'release')

    def __init__(self, forget: Callable[[_ReaderKey], None]) -> None:
        lock = threading.RLock()
        # Bound once, since binding takes a good part of an uncontended call.
        self.acquire = lock.acquire
        self.release = lock.release
        self.key = _ReaderKey(self, forget)
        self.key.acquire = lock.acquire
        self.key.release = lock.release


class _ReaderKey(weakref.ref[_Reader]):
    """A thread's own lock, as writers have it: it tells if the thread ends."""

    __slots__ = ('acquire', 'release')

    acquire: Callable[..., bool]
    release: Callable[[], None]

    # By identity, whereas a plain reference asks the object that has gone.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class BigReaderLock:
    """Reader-writer lock that makes a read about as cheap as a mutex does.

    Every thread that reads has a lock of its own and takes only that, so
    readers never meet. A writer takes the gate, which admits one thread, and
    waits until every reader's own lock was free once. From then on readers
    queue at the gate as well, and the lock is a mutex, until reads prevail
    again. So neither readers nor writers starve, and writes that follow each
    other wait only for the gate.

    It runs an operation for its caller, rather than being held by the caller,
    and gives every operation these guarantees: an exception that a signal
    handler raises, at whatever point, leaves the lock free; a finalizer or
    signal handler that interrupts an operation can itself use the lock, to
    read or to write; and a forked child finds the lock free.

    Source: the big-reader lock of Linux 2.4 (brlock), also known as
    distributed reader-writer lock: a lock for each reader, and writers take
    them all. When readers use their own locks is decided as in BRAVO (Dice
    and Kogan, Biased Locking for Reader-Writer Locks, USENIX ATC 2019).
    """

    # Rules that all methods keep:
    #
    # 1. A thread blocks on the gate only while it holds no lock of ours. So
    #    whoever has the gate finds every reader's lock free as soon as the
    #    reads under way are over.
    # 2. A thread enters itself in _readers at the gate, before it first reads.
    #    So whoever has the gate finds there all threads that can be reading.
    # 3. _biased and _drained change at the gate only. A reader reads under its
    #    own lock only if it finds _biased true after it took the lock. While
    #    _drained is true, every reader's lock was free once after _biased had
    #    become false: so nobody reads but at the gate.
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
        # The _Reader of each thread as .reader, and its key as .key.
        self._mine = threading.local()
        # The own lock of each thread that reads. When the thread ends its
        # _Reader goes, and with that the key discards itself.
        self._readers: set[_ReaderKey] = set()
        self._biased = True  # Readers may read under their own locks.
        self._drained = False  # No reader reads under its own lock.
        self._writing = False  # Whoever has the gate is inside a write.
        self._reads = 0  # At the gate, since the last write.
        self._unbiased_until = 0.0  # On the monotonic clock, in seconds.
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
        try:
            reader = self._mine.reader
        except AttributeError:
            reader = self._introduce()
        while self._biased:
            try:
                reader.acquire()
                biased = self._biased
                if biased:
                    result = operation(argument)
            except BaseException:
                try:
                    reader.release()
                except RuntimeError as error:
                    if error.args != _NOT_HELD:
                        raise
                raise
            try:
                reader.release()
            except RuntimeError as error:
                if error.args != _NOT_HELD:
                    raise
                # An operation inside this one let go of the lock, see
                # _let_go(): what was read may be of two moments.
                continue
            if biased:
                return result
        return self._shared_at_gate(operation, argument)

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
        gate = self._gate
        taken = True  # Unless acquire() returns and says otherwise.
        writing = None
        try:
            taken = gate.acquire(False)
            if not taken:
                self._let_go()
                start = monotonic()
                taken = True
                gate.acquire()
                self._stay_unbiased(start)
            writing = self._writing
            self._writing = True
            if not self._drained:
                readers = self._readers
                if readers and (
                    len(readers) > 1
                    or self._mine.__dict__.get('key') not in readers
                ):
                    self._drain()
            self._reads = 0
            return operation(*arguments)
        finally:
            if writing is not None:
                self._writing = writing
            if taken:
                try:
                    gate.release()
                except RuntimeError as error:
                    if error.args != _NOT_HELD:
                        raise

    def _shared_at_gate(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        """Run an operation as the only one, since readers are not biased."""
        gate = self._gate
        taken = True
        try:
            taken = gate.acquire(False)
            if not taken:
                self._let_go()
                taken = True
                gate.acquire()
            self._reads += 1
            # Not from inside a write: readers would come in beside it.
            if self._reads > _READS_TO_BIAS and not self._writing:
                self._reads = 0
                if monotonic() > self._unbiased_until:
                    self._drained = False
                    self._biased = True
            return operation(argument)
        finally:
            if taken:
                try:
                    gate.release()
                except RuntimeError as error:
                    if error.args != _NOT_HELD:
                        raise

    def _introduce(self) -> _Reader:
        """Make the lock of the calling thread, and enter it for writers.

        Interrupted half way, a thread may do this twice: a key whose _Reader
        was not published discards itself at once.
        """
        reader = _Reader(self._readers.discard)
        self._shared_at_gate(self._readers.add, reader.key)
        self._mine.key = reader.key
        self._mine.reader = reader
        return reader

    def _drain(self, patience: float = -1) -> bool:
        """Wait, at the gate, until no reader reads under its own lock.

        Args:
            patience: Seconds to wait for each reader; -1 is for ever.

        Returns:
            If it came to that.
        """
        start = monotonic()
        self._biased = False  # So that no reader comes back.
        self._let_go()
        for key in [*self._readers]:
            try:
                free = key.acquire(True, patience)
            finally:
                try:
                    key.release()
                except RuntimeError as error:
                    if error.args != _NOT_HELD:
                        raise
            if not free:
                return False
        self._stay_unbiased(start)
        # Unless a signal handler read so often meanwhile.
        self._drained = not self._biased
        return self._drained

    def _stay_unbiased(self, start: float) -> None:
        """At the gate, keep readers from their own locks for a while.

        Args:
            start: When the write that has the gate began to wait, in seconds.
        """
        end = monotonic()
        until = end + _UNBIASED * (end - start)
        self._unbiased_until = max(self._unbiased_until, until)

    def _let_go(self) -> None:
        """Let go of the calling thread's own lock.

        It holds that if this is called inside a read of its own, which a
        finalizer or a signal handler has interrupted. The read notices, and
        starts over.
        """
        reader = self._mine.__dict__.get('reader')
        if reader is not None:
            try:
                # As often as it is held: the last release raises.
                deque(map(call, repeat(reader.release)), maxlen=0)
            except RuntimeError as error:
                if error.args != _NOT_HELD:
                    raise


# All locks, numbered as they are made.
_locks: set[weakref.ref[BigReaderLock]] = set()
_numbers = count()

# A thread that forks holds _forking meanwhile, and the gates of all locks in
# _taken. The gates are in _held, above a marker: _releases, whenever it is
# asked, pops and releases one, and is true for a marker, where any() stops.
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
    more = True
    while more:
        try:
            more = _take_next()
        except BaseException as error:
            # Raised when all are taken, since the fork goes on without us.
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _take_next() -> bool:
    """Take one more lock: always the oldest, so that no two forks deadlock.

    A thread inside an operation on a later lock may need an earlier one for a
    finalizer. So after a while let go of all and start anew.

    Returns:
        If there was one more.
    """
    locks = {lock for key in [*_locks] if (lock := key())} - _taken
    if not locks:
        return False
    lock = min(locks, key=attrgetter('_number'))
    patience = _FORK_PATIENCE if _taken else -1
    held = len(_held)
    lock._let_go()
    acquire = methodcaller('acquire', True, patience)
    _held.extend(takewhile(acquire, (lock._gate,)))
    if len(_held) > held and (lock._drained or lock._drain(patience)):
        _taken.add(lock)
    else:
        any(_releases)
        _held.append(_MARKER)
        _taken.clear()
    return True


def _after_fork_in_child() -> None:
    any(_releases)
    # Made anew rather than changed: on a free-threaded build the child may
    # find it locked, by a thread that it does not have.
    global _locks  # noqa: PLW0603
    _locks = set()
    for lock in _taken:
        _locks.add(weakref.ref(lock, _locks.discard))
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
