"""How a connector speaks to its lock, and which dict has which lock."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any
from typing import get_args
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

ReaderWriterLock: TypeAlias = (
    RWLockFair
    | RWLockFairD
    | RWLockRead
    | RWLockReadD
    | RWLockWrite
    | RWLockWriteD
)
"""The locks that a connector accepts: all those of `readerwriterlock`.

They differ in who goes first when readers and writers wait: RWLockFair takes
turns, RWLockRead prefers readers and RWLockWrite writers. The names that end
in D are the downgradable forms of the same.
"""


class GuardedDict:
    """A dict together with the lock that all its users share.

    Everything that is done with the dict is done by one of two methods, which
    run one operation each. A connector holds on to the GuardedDict of its
    dict; nothing else does.

    Args:
        store: Dict to guard.
        lock: Lock to guard it with.
    """

    __slots__ = ('__weakref__', 'lock', 'store')

    def __init__(
        self,
        store: dict[Any, bytes],
        lock: ReaderWriterLock,
    ) -> None:
        self.store = store
        self.lock = lock

    def shared(
        self,
        operation: Callable[[ArgumentT], ResultT],
        argument: ArgumentT,
    ) -> ResultT:
        """Run an operation that only reads the dict, beside other readers.

        Args:
            operation: Callable that reads the dict.
            argument: What to call it with.

        Returns:
            What the operation returns.
        """
        with self.lock.gen_rlock():
            return operation(argument)

    def exclusive(
        self,
        operation: Callable[..., ResultT],
        *arguments: Any,
    ) -> ResultT:
        """Run an operation that changes the dict, alone.

        Args:
            operation: Callable that changes the dict.
            arguments: What to call it with.

        Returns:
            What the operation returns.
        """
        with self.lock.gen_wlock():
            return operation(*arguments)


# Must be held while a dict is looked up or entered here. It is reentrant
# since a finalizer may make a connector while its thread is making one.
_registry_lock = threading.RLock()
_registry: weakref.WeakValueDictionary[int, GuardedDict] = (
    weakref.WeakValueDictionary()
)


def guard(
    store: dict[Any, bytes],
    lock: ReaderWriterLock | None = None,
) -> GuardedDict:
    """Get the guarded form of a dict: the same for all who ask.

    The registry is weak, and a GuardedDict keeps its dict alive, so as long
    as there is an entry its identity belongs to that dict.

    Args:
        store: Dict to guard.
        lock: Lock to guard it with. If not specified, the lock that the dict
            already has, or else a new `RWLockFair`.

    Returns:
        The dict with its lock.

    Raises:
        TypeError: If `store` is not a dict or `lock` is not a lock of
            `readerwriterlock`.
        ValueError: If the dict already has another lock.
    """
    if not isinstance(store, dict):
        raise TypeError(
            f'store_dict must be a dict, not {type(store).__name__}.',
        )
    if lock is not None and not isinstance(lock, get_args(ReaderWriterLock)):
        names = ', '.join(kind.__name__ for kind in get_args(ReaderWriterLock))
        raise TypeError(
            'lock must be an instance of a lock of readerwriterlock.rwlock '
            f'({names}), not {lock!r}.',
        )
    with _registry_lock:
        guarded = _registry.get(id(store))
        if guarded is None:
            guarded = GuardedDict(
                store,
                RWLockFair() if lock is None else lock,
            )
            _registry[id(store)] = guarded
    if lock is not None and guarded.lock is not lock:
        raise ValueError(
            'store_dict is already used by a connector with another lock '
            f'({guarded.lock!r}): connectors on one dict share one '
            'lock. Pass the same lock object to each, or none.',
        )
    return guarded
