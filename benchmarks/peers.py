"""The rivals: everything that is measured, behind one connector shape."""

from __future__ import annotations

import importlib
import threading
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from typing import Protocol

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockWrite

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
        safe: If threads can share it, and its batches are atomic, as ours.
    """

    name: str
    about: str
    make: Callable[[], Connector]
    safe: bool = True


class _Rival:
    """What every rival has: ProxyStore's keys, and nothing to configure."""

    def config(self) -> dict[str, Any]:
        return {}

    def new_key(self) -> LocalKey:
        return LocalKey(str(uuid.uuid4()))


class _LockedDict(_Rival):
    """A dict behind two context managers, one to read and one to write."""

    def __init__(
        self,
        reading: AbstractContextManager[object],
        writing: AbstractContextManager[object],
    ) -> None:
        self._store: dict[LocalKey, bytes] = {}
        self._reading = reading
        self._writing = writing

    def __len__(self) -> int:
        with self._reading:
            return len(self._store)

    def evict(self, key: LocalKey) -> None:
        with self._writing:
            self._store.pop(key, None)

    def exists(self, key: LocalKey) -> bool:
        with self._reading:
            return key in self._store

    def get(self, key: LocalKey) -> bytes | None:
        with self._reading:
            return self._store.get(key)

    def get_batch(self, keys: Iterable[LocalKey]) -> list[bytes | None]:
        with self._reading:
            return [self._store.get(key) for key in keys]

    def put(self, obj: bytes) -> LocalKey:
        key = self.new_key()
        with self._writing:
            self._store[key] = obj
        return key

    def put_batch(self, objs: Iterable[bytes]) -> list[LocalKey]:
        items = {self.new_key(): obj for obj in objs}
        with self._writing:
            self._store.update(items)
        return list(items)

    def set(self, key: LocalKey, obj: bytes) -> None:
        with self._writing:
            self._store[key] = obj


@dataclass(frozen=True)
class _Held(AbstractContextManager[None]):
    """What a lock that is acquired and released by two methods lacks."""

    acquire: Callable[[], object]
    release: Callable[[], object]

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class _AtomicDict(_Rival):
    """A dict that is itself safe, but has no atomic batches."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self._store)

    def evict(self, key: LocalKey) -> None:
        try:
            del self._store[key]
        except KeyError:
            return

    def exists(self, key: LocalKey) -> bool:
        return self._store.get(key) is not None

    def get(self, key: LocalKey) -> bytes | None:
        return self._store.get(key)  # type: ignore[no-any-return]

    def get_batch(self, keys: Iterable[LocalKey]) -> list[bytes | None]:
        return [self._store.get(key) for key in keys]

    def put(self, obj: bytes) -> LocalKey:
        key = self.new_key()
        self._store[key] = obj
        return key

    def put_batch(self, objs: Iterable[bytes]) -> list[LocalKey]:
        return [self.put(obj) for obj in objs]

    def set(self, key: LocalKey, obj: bytes) -> None:
        self._store[key] = obj


def _mutex(
    name: str,
    lock: Callable[[], AbstractContextManager[object]],
) -> Peer:
    def make() -> Connector:
        mutex = lock()
        return _LockedDict(mutex, mutex)

    return Peer(name, f'a dict, each call under one threading.{name}', make)


def _ours_with(lock: type[Any]) -> Peer:
    return Peer(
        lock.__name__,
        f'this connector, lock={lock.__name__}()',
        lambda: LocalConnector(lock=lock()),
    )


def _fasteners() -> Peer:
    lock_type = importlib.import_module('fasteners').ReaderWriterLock

    def make() -> Connector:
        lock = lock_type()
        return _LockedDict(
            _Held(lock.acquire_read_lock, lock.release_read_lock),
            _Held(lock.acquire_write_lock, lock.release_write_lock),
        )

    return Peer('fasteners', 'a dict under fasteners.ReaderWriterLock', make)


def _cereggii() -> Peer:
    lock_type = importlib.import_module('cereggii.locks').ReadersWriterLock

    def make() -> Connector:
        lock = lock_type()
        return _LockedDict(lock.reader(), lock.writer())

    return Peer('cereggii', 'a dict under cereggii ReadersWriterLock', make)


def _atomic_dict() -> Peer:
    dict_type = importlib.import_module('cereggii').AtomicDict
    return Peer(
        'AtomicDict',
        'a cereggii.AtomicDict; its batches are not atomic',
        lambda: _AtomicDict(dict_type()),
        safe=False,
    )


def _proxystore() -> Peer:
    theirs = importlib.import_module('proxystore.connectors.local')
    return Peer(
        PROXYSTORE,
        "ProxyStore's own LocalConnector, which takes no lock",
        theirs.LocalConnector,
        safe=False,
    )


def find_peers() -> tuple[list[Peer], list[str]]:
    """Find what can be measured here.

    Returns:
        The peers, ours first, and for each peer that is missing a sentence \
        that says why.
    """
    peers = [
        Peer(OURS, 'this connector with its default lock', LocalConnector),
        _mutex(LOCK, threading.Lock),
        _mutex('RLock', threading.RLock),
        _ours_with(RWLockFair),
        _ours_with(RWLockRead),
        _ours_with(RWLockWrite),
    ]
    skipped = []
    for name, find in (
        ('fasteners', _fasteners),
        ('cereggii', _cereggii),
        ('AtomicDict', _atomic_dict),
        (PROXYSTORE, _proxystore),
    ):
        try:
            peers.append(find())
        except ImportError as error:
            skipped.append(f'{name} is skipped: {error}.')
    return peers, skipped
