"""Which data has which guard, so that connectors on the same share one."""

from __future__ import annotations

import os
import platform
import uuid
import weakref
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from typing import Any
from typing import get_args

from proxystore_local.guarded import DictGuard
from proxystore_local.guarded import GuardedDict
from proxystore_local.rwlocked import RWLock
from proxystore_local.rwlocked import RWLockedDict

# The guard of each dict, by the dict's identity and by its store_id. A guard
# keeps its dict alive, so the identity is no other dict's. There is no lock:
# each change is one call on this dict, and an entry is removed, as
# weakref.WeakValueDictionary does it, only while its guard is dead.
_guards: dict[int | str, weakref.ref[DictGuard]]
_guards = globals().get('_guards', {})  # A reload of this module keeps it.


def guard(
    store: dict[Any, bytes], lock: RWLock | None, store_id: str | None
) -> DictGuard:
    """Get the guard of a dict: the same for all who ask, as long as it lives.

    With the identifier of other data, get the guard of that data; if there is
    none in this process, the dict takes over the identifier.
    """
    if type(store) is not dict:
        raise TypeError(
            f'store_dict must be a plain dict, not {type(store).__name__}: a '
            'subclass of dict may run code of its own, or write, as it reads.',
        )
    if lock is not None and not isinstance(lock, get_args(RWLock)):
        names = ', '.join(kind.__name__ for kind in get_args(RWLock))
        raise TypeError(
            'lock must be an instance of a lock of readerwriterlock.rwlock '
            f'({names}), not {lock!r}.',
        )
    if store_id is None:
        store_id = f'{platform.node()}/{os.getpid()}/{uuid.uuid4()}'
    elif not isinstance(store_id, str):
        raise TypeError(
            f'store_id must be the text that config() has, not {store_id!r}.',
        )
    made = GuardedDict(store) if lock is None else RWLockedDict(store, lock)
    made.store_id = store_id
    found = _first(store_id, made)
    if found is made:
        found = _first(id(store), made)
    if lock is not None and found.lock is not lock:
        raise ValueError(
            'the data already has another lock, and connectors on the same '
            'data share one lock: pass the same lock object to each, or none.',
        )
    return found


def _first(name: int | str, made: DictGuard) -> DictGuard:
    """Get the guard that is registered under a name, or register this one."""

    def remove(_: object) -> None:
        _remove_dead_weakref(_guards, name)

    entry = weakref.ref(made, remove)
    while (found := _guards.setdefault(name, entry)()) is None:
        remove(entry)
    return found


def _renew_guards() -> None:
    for entry in list(_guards.values()):
        guard = entry()
        if guard is not None:  # Its truth would be its length.
            guard.renew()


# Nothing is done before a fork, or in the parent.
if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_renew_guards)
