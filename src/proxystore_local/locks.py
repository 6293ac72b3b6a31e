"""The lock of a connector, and which dict has which lock."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from itertools import chain
from itertools import repeat
from itertools import takewhile
from operator import call
from operator import methodcaller
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

_acquire = methodcaller('acquire')
_try_to_acquire = methodcaller('acquire', False)
_release = methodcaller('release')

try:
    threading.RLock().release()
except RuntimeError as error:
    # What tells "this thread does not hold the lock" from a RuntimeError that
    # a signal handler raises.
    _NOT_HELD = error.args


class _Lock(Protocol):
    """What we need of a lock."""

    def acquire(self, blocking: bool = True, /) -> bool: ...

    def release(self) -> None: ...


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
    readers never meet. A writer takes the gate, which admits one writer, and
    then the own lock of every reader. A reader that sees a writer waiting
    queues at the gate with the writers and reads while it holds that, so
    neither starves.

    It runs an operation for its caller, rather than being held by the caller,
    and gives every operation these guarantees: an exception that a signal
    handler raises, at whatever point, leaves the lock free; a finalizer or
    signal handler that interrupts an operation can itself use the lock, to
    read or to write; and a forked child finds the lock free.

    Source: the big-reader lock of Linux 2.4 (brlock), also known as
    distributed reader-writer lock: one lock for each reader, and a writer
    takes them all.
    """

    # Rules that all methods keep:
    #
    # 1. A thread blocks on the gate only while it holds no lock of ours. So
    #    whoever has the gate gets the readers' locks as soon as the reads
    #    under way are over.
    # 2. A thread enters itself in _readers at the gate, before it first reads.
    #    So whoever has the gate finds there all threads that can be reading.
    # 3. An interrupt (an exception from a signal handler, or set by another
    #    thread) comes right after a call returns, when a Python function is
    #    entered or at a backward jump, or from a call that blocks; nowhere
    #    else. So whatever takes a lock is the first call of its try block or
    #    records what it took within the same C call, and whatever gives locks
    #    back is the first call of its finally or except clause. A `with`
    #    statement would not do: a handler may raise between __enter__ and its
    #    body, see https://github.com/python/cpython/issues/148874.

    def __init__(self) -> None:
        # Must be held to add to _readers, while another thread's own lock is
        # held, and by a reader that does not hold its own lock.
        self._gate = threading.RLock()
        # The _Reader of each thread as .reader, and its key as .key.
        self._mine = threading.local()
        # The own lock of each thread that reads. When the thread ends its
        # _Reader goes, and with that the key discards itself.
        self._readers: set[_ReaderKey] = set()
        # Tokens of writers that wait. A hint that readers go by to be fair.
        self._waiting: set[object] = set()
        _locks.add(weakref.ref(self, _locks.discard))

    def shared(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        """Run an operation that only reads, beside others that do.

        Args:
            operation: Callable that reads. It may be called again if a
                finalizer or signal handler writes in the middle of it.
            argument: What to call it with.

        Returns:
            What the operation returns.
        """
        try:
            reader = self._mine.reader
        except AttributeError:
            reader = self._introduce()
        while not self._waiting:
            try:
                reader.acquire()
                result = operation(argument)
            except BaseException:
                # Whether acquire() was interrupted before or after it took
                # the lock, only the lock knows.
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
                # _take_gate(): what was read may be of two moments.
                continue
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
        try:
            taken = gate.acquire(False)
            if taken:
                readers = self._readers
                if not readers or (
                    len(readers) == 1
                    and self._mine.__dict__.get('key') in readers
                ):
                    return operation(*arguments)
        finally:
            if taken:
                try:
                    gate.release()
                except RuntimeError as error:
                    if error.args != _NOT_HELD:
                        raise
        return self._exclusive_among_readers(operation, arguments)

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

    def _shared_at_gate(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        held: list[_Lock] = []
        releases = map(_release, held)
        try:
            self._take_gate(held)
            return operation(argument)
        finally:
            any(releases)

    def _exclusive_among_readers(
        self,
        operation: Callable[..., ResultT],
        arguments: tuple[Any, ...],
    ) -> ResultT:
        held: list[_Lock] = []
        token = object()
        withdrawal = map(self._waiting.discard, (token,))
        releases = chain(withdrawal, map(_release, held))
        try:
            if not self._try_to_take(held):
                self._waiting.add(token)
                self._take(held)
            return operation(*arguments)
        finally:
            any(releases)

    def _try_to_take(self, held: list[_Lock]) -> bool:
        """Take the gate and all readers' locks, if none of them is taken.

        Args:
            held: List to record the locks in that were taken, even if not
                all were.

        Returns:
            If all were taken.
        """
        before = len(held)
        held.extend(takewhile(_try_to_acquire, (self._gate,)))
        if len(held) == before:
            return False
        readers = [*self._readers]
        held.extend(takewhile(_try_to_acquire, readers))
        return len(held) == before + 1 + len(readers)

    def _take(self, held: list[_Lock]) -> None:
        """Take the gate and all readers' locks, as soon as they are free.

        Args:
            held: List to record the locks in; may hold some of them already.
        """
        self._take_gate(held)
        held.extend(filter(_acquire, [*self._readers]))

    def _take_gate(self, held: list[_Lock]) -> None:
        """Take the gate as soon as it is free.

        If the calling thread is inside a read of its own, which it has
        interrupted, it lets go of its own lock before it blocks; the read
        notices and starts over.

        Args:
            held: List to record the gate in.
        """
        gate = (self._gate,)
        before = len(held)
        held.extend(takewhile(_try_to_acquire, gate))
        if len(held) > before:
            return
        reader = self._mine.__dict__.get('reader')
        if reader is not None:
            try:
                # As often as it is held: the last release raises.
                deque(map(call, repeat(reader.release)), maxlen=0)
            except RuntimeError as error:
                if error.args != _NOT_HELD:
                    raise
        held.extend(filter(_acquire, gate))


_locks: set[weakref.ref[BigReaderLock]] = set()
# What a thread that forks holds meanwhile. A stack, since a signal handler
# that interrupts it may fork as well.
_fork = threading.local()


def _before_fork() -> None:
    """Take every lock, so that no operation is half done in the child.

    It blocks on a lock only while it holds no other, and starts anew with
    that one if another turns out to be taken. So it is part of no deadlock.
    """
    held: list[_Lock] = []
    token = object()
    locks = deque(lock for key in [*_locks] if (lock := key()))
    _fork.__dict__.setdefault('stack', []).append((locks, token, held))
    for lock in locks:
        lock._waiting.add(token)
    while not _take_all(locks, held):
        any(map(_release, held))
        held.clear()


def _take_all(locks: deque[BigReaderLock], held: list[_Lock]) -> bool:
    for lock in locks:
        if not held:
            lock._take(held)
        elif not lock._try_to_take(held):
            locks.remove(lock)
            locks.appendleft(lock)
            return False
    return True


def _after_fork_in_parent() -> None:
    locks, token, held = _fork.stack.pop()
    any(map(_release, held))
    for lock in locks:
        lock._waiting.discard(token)


def _after_fork_in_child() -> None:
    # What threads share without our lock is made anew rather than changed: on
    # a free-threaded build the child may find it locked, by a thread that it
    # does not have.
    global _locks
    _locks = set()
    locks, _, held = _fork.stack.pop()
    any(map(_release, held))
    for lock in locks:
        lock._waiting = set()  # The writers that waited are gone.
        _locks.add(weakref.ref(lock, _locks.discard))


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
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
