"""Keys of stored objects and how they are minted."""

from __future__ import annotations

from itertools import repeat
from os import urandom
from typing import NamedTuple


class LocalKey(NamedTuple):
    """Key to an object in a `LocalConnector`.

    As a tuple it equals, and hashes like, ProxyStore's own `LocalKey` with
    the same id.

    Attributes:
        id: Unique object ID: a version-4 UUID in its usual text form.
    """

    id: str


# A version-4 UUID is 32 hexadecimal digits, see RFC 9562, section 5.4: all are
# random, but for the 4 that is its version, and the first of its variant.
_BYTES = 16
_DIGITS, _VARIANTS = '0123456789abcdef', '89ab' * 4
_VARIANT = dict(zip(_DIGITS, _VARIANTS))
# Makes a LocalKey as LocalKey() does, without Python code.
_new = tuple.__new__


def mint() -> LocalKey:
    """Mint a key, whose id is a random (version 4) UUID."""
    # In a third of the time of LocalKey(str(uuid.uuid4())). The dashes that
    # hex() makes, after 8 digits and before the last 12, are those of the id.
    x = urandom(_BYTES).hex('-', 6)
    return _new(LocalKey, (f'{x[:13]}-4{x[14:17]}-{_VARIANT[x[17]]}{x[18:]}',))


_LINE = b'xxxxxxxx-xxxx-4xxx-Vxxx-xxxxxxxxxxxx\n'
_COLUMNS = [column for column, form in enumerate(_LINE) if form in b'xV']
_V_COLUMN = _LINE.index(b'V')
_TO_VARIANT = bytes.maketrans(_DIGITS.encode(), _VARIANTS.encode())


def mint_batch(count: int) -> list[LocalKey]:
    """Mint so many keys."""
    if count < 20:
        return [mint() for _ in range(count)]
    # One call for all the random bytes, and one for each column of the text,
    # in place of several for each key: half the time.
    digits = urandom(_BYTES * count).hex().encode()
    text = bytearray(_LINE * count)
    for index, column in enumerate(_COLUMNS):
        text[column :: len(_LINE)] = digits[index :: 2 * _BYTES]
    variants = text[_V_COLUMN :: len(_LINE)]
    text[_V_COLUMN :: len(_LINE)] = variants.translate(_TO_VARIANT)
    return list(map(_new, repeat(LocalKey), zip(text.decode().split())))
