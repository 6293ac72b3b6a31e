"""Keys of stored objects and how they are minted."""

from __future__ import annotations

import uuid
from typing import NamedTuple


class LocalKey(NamedTuple):
    """Key to an object in a [`LocalConnector`][proxystore_local.LocalConnector].

    As a tuple it equals, and hashes like, ProxyStore's own `LocalKey` with
    the same id.

    Attributes:
        id: Unique object ID: a version-4 UUID in its usual text form.
    """  # noqa: E501

    id: str


def mint() -> LocalKey:
    """Mint a key that was never handed out before.

    Returns:
        Key whose id is a random (version 4) UUID, see
        [RFC 9562](https://www.rfc-editor.org/rfc/rfc9562#section-5.4).
    """
    return LocalKey(str(uuid.uuid4()))


def mint_batch(count: int) -> list[LocalKey]:
    """Mint many keys.

    Args:
        count: Number of keys.

    Returns:
        As many keys, each as [`mint()`][proxystore_local.keys.mint] makes it.
    """
    return [mint() for _ in range(count)]
