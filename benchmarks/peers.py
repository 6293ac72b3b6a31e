"""The rivals: everything that is measured, behind one connector shape."""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from typing import Protocol

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

OURS = 'ours'
LOCK = 'Lock'
PROXYSTORE = 'ProxyStore'
FAIR = RWLockFair.__name__


class Connector(Protocol):
    """What a peer must offer. `len()` is measured where there is one."""

    def evict(self, key: Any) -> None:
        """Evict an object, if it is there."""

    def exists(self, key: Any) -> bool:
        """Check if an object is there."""

    def get(self, key: Any) -> Any:
        """Get an object, or None."""

    def get_batch(self, keys: Any) -> list[Any]:
        """Get many objects."""

    def new_key(self) -> Any:
        """Mint a key."""

    def put(self, obj: Any) -> Any:
        """Store an object under a new key."""

    def put_batch(self, objs: Any) -> list[Any]:
        """Store many objects under new keys."""

    def set(self, key: Any, obj: Any) -> None:
        """Store an object under this key."""


@dataclass(frozen=True)
class Peer:
    """A connector to measure.

    Attributes:
        name: What the tables call it.
        about: What it is, in a few words.
        make: Makes a new, empty connector.
    """

    name: str
    about: str
    make: Callable[[], Connector]


class _LockConnector:
    """The obvious alternative: a dict behind one `threading.Lock`."""

    def __init__(self) -> None:
        self._store: dict[LocalKey, bytes] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._store)

    def evict(self, key: LocalKey) -> None:
        with self._lock:
            self._store.pop(key, None)

    def exists(self, key: LocalKey) -> bool:
        with self._lock:
            return key in self._store

    def get(self, key: LocalKey) -> bytes | None:
        with self._lock:
            return self._store.get(key)

    def get_batch(self, keys: Iterable[LocalKey]) -> list[bytes | None]:
        with self._lock:
            return [self._store.get(key) for key in keys]

    def new_key(self) -> LocalKey:
        return LocalKey(str(uuid.uuid4()))

    def put(self, obj: bytes) -> LocalKey:
        key = self.new_key()
        with self._lock:
            self._store[key] = obj
        return key

    def put_batch(self, objs: Iterable[bytes]) -> list[LocalKey]:
        items = {self.new_key(): obj for obj in objs}
        with self._lock:
            self._store.update(items)
        return list(items)

    def set(self, key: LocalKey, obj: bytes) -> None:
        with self._lock:
            self._store[key] = obj


def _ours_with(lock: type[Any]) -> Peer:
    return Peer(
        lock.__name__,
        f'this connector, lock={lock.__name__}()',
        lambda: LocalConnector(lock=lock()),
    )


def find_peers() -> tuple[list[Peer], list[str]]:
    """Find what can be measured here.

    Returns:
        The peers, ours first, and for each peer that is missing a sentence \
        that says why.
    """
    peers = [
        Peer(OURS, 'this connector with its default lock', LocalConnector),
        Peer(LOCK, 'a dict, each call under one Lock', _LockConnector),
        _ours_with(RWLockFair),
        _ours_with(RWLockRead),
        _ours_with(RWLockWrite),
        _ours_with(RWLockFairD),
        _ours_with(RWLockReadD),
        _ours_with(RWLockWriteD),
    ]
    try:
        theirs = importlib.import_module('proxystore.connectors.local')
    except ImportError as error:
        return peers, [f'{PROXYSTORE} is skipped: {error}.']
    about = "ProxyStore's own LocalConnector, which takes no lock"
    return [*peers, Peer(PROXYSTORE, about, theirs.LocalConnector)], []
