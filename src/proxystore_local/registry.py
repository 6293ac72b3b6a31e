"""Which data has which lock, so that connectors on the same share one."""

from __future__ import annotations

import weakref
from _weakref import _remove_dead_weakref  # type: ignore[attr-defined]
from functools import partial
from itertools import repeat
from itertools import starmap

from proxystore_local.guarded import GuardedDict

# What guards each dict, by the dict's identity and by its store_id. It keeps
# its dict alive, so the identity is no other dict's. There is no lock: each
# change is one call on this dict, and an entry is removed, as
# weakref.WeakValueDictionary does it, only while what it refers to is dead.
_entries: dict[int | str, weakref.ref[GuardedDict]] = {}


def register(made: GuardedDict) -> GuardedDict:
    """Get what guards the data of this identifier, or else this dict.

    If nothing does yet, it is this. All who ask get the same, while it lives.
    """
    found = _first(made.store_id, made)
    if found is made:
        found = _first(id(made.store), made)
    return found


def _first(name: int | str, made: GuardedDict) -> GuardedDict:
    """Get what is registered under a name, or register this."""
    # Called with the weak reference, which next() takes as its default. It is
    # in C, as CPython only prints what a signal handler raises in a callback.
    run = starmap(_remove_dead_weakref, repeat((_entries, name)))
    remove = partial(next, run)
    entry = weakref.ref(made, remove)
    while (found := _entries.setdefault(name, entry)()) is None:
        remove(entry)
    return found
