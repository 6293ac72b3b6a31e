"""Keys of stored objects and how they are minted."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple


class LocalKey(NamedTuple):
    """Key to an object in a `LocalConnector`.

    As a tuple it equals, and hashes like, ProxyStore's own `LocalKey` with
    the same id.

    Attributes:
        id: Unique object ID: a version-4 UUID in its usual text form.
    """

    id: str


_to_key = partial(tuple.__new__, LocalKey)

# The text form of a version-4 UUID, a line each: x is any hex digit and V is
# one of 8, 9, a and b, see RFC 9562, section 5.4.
_LINE = b'xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx\n'
_VARIANT = _LINE.index(b'V')
_TO_VARIANT = bytes.maketrans(b'0123456789abcdef', b'89ab' * 4)
_PLACES = [place for place, form in enumerate(_LINE) if form in b'xV']
_BYTES = 16  # Of a UUID. Its text has no place for the last random digit.

_POOL = 128  # So many are minted at once.


class _Pool(threading.local):
    """An iterator over the keys that a thread has in store."""

    # Not by __init__(), in the middle of which other code may mint.
    keys: Iterable[LocalKey] = ()

    def renew(self) -> None:
        self.keys = []  # Another object, by which mint() notices a fork.


_pool = _Pool()

if hasattr(os, 'register_at_fork'):
    # Parent and child must not mint the same key.
    os.register_at_fork(after_in_child=_pool.renew)


def mint() -> LocalKey:
    """Mint a key, whose id is a random (version 4) UUID."""
    while True:
        keys = _pool.keys
        # The first of them, if there is one. That takes no call, where other
        # code in this thread could mint in between.
        for key in keys:
            return key
        more = iter(_mint_at_once(_POOL))
        # If a signal handler has forked meanwhile, both sides have these.
        if _pool.keys is keys:
            _pool.keys = more


def mint_batch(count: int) -> list[LocalKey]:
    """Mint so many keys."""
    if count < _POOL:
        return [mint() for _ in range(count)]
    return _mint_at_once(count)


def _mint_at_once(count: int) -> list[LocalKey]:
    # One call for all the random bytes, and one for each place in the text,
    # instead of a dozen for each key: four times as fast.
    digits = os.urandom(_BYTES * count).hex().encode()
    text = bytearray(_LINE * count)
    for index, place in enumerate(_PLACES):
        text[place :: len(_LINE)] = digits[index :: 2 * _BYTES]
    variants = text[_VARIANT :: len(_LINE)]
    text[_VARIANT :: len(_LINE)] = variants.translate(_TO_VARIANT)
    return list(map(_to_key, zip(text.decode().split())))
