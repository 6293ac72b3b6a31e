"""The peers: everything that is measured, behind one connector shape."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockWrite

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

OURS = 'ours'
LOCK = 'Lock'
FAIR = 'RWLockFair'
PROXYSTORE = 'ProxyStore'


@dataclass(frozen=True)
class Peer:
    """A connector to measure.

    Attributes:
        name: What tables and charts call it.
        about: What it is, in a few words.
        colour: Its colour in charts, legible on white and on black.
        make: Makes a new, empty connector. Those that are no `LocalConnector`
            have the same methods, and may lack `len()`.
        needs: Package that it needs, beyond those of the connector itself.
        lacks: What ours gives and it does not; it is marked with a *.
    """

    name: str
    about: str
    colour: str
    make: Callable[[], Any]
    needs: str = ''
    lacks: str = ''

    @property
    def label(self) -> str:
        """Its name, with a * if it lacks something."""
        return self.name + '*' * bool(self.lacks)


class _LockedDict:
    """A dict behind one lock, or behind one to read and one to write."""

    def __init__(
        self,
        reading: AbstractContextManager[object],
        writing: AbstractContextManager[object] | None = None,
    ) -> None:
        self._store: dict[LocalKey, bytes] = {}
        self._reading = reading
        self._writing = reading if writing is None else writing

    def __len__(self) -> int:
        with self._reading:
            return len(self._store)

    def config(self) -> dict[str, Any]:
        return {}

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

    def new_key(self) -> LocalKey:
        return LocalKey(str(uuid.uuid4()))

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
    """A lock that is acquired and released by two methods, for `with`."""

    acquire: Callable[[], object]
    release: Callable[[], object]

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class _AtomicDict:
    """A `cereggii.AtomicDict`, which is safe in itself."""

    def __init__(self) -> None:
        self._store = import_module('cereggii').AtomicDict()

    def __len__(self) -> int:
        return len(self._store)

    def config(self) -> dict[str, Any]:
        return {}

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

    def new_key(self) -> LocalKey:
        return LocalKey(str(uuid.uuid4()))

    def put(self, obj: bytes) -> LocalKey:
        key = self.new_key()
        self._store[key] = obj
        return key

    def put_batch(self, objs: Iterable[bytes]) -> list[LocalKey]:
        return [self.put(obj) for obj in objs]

    def set(self, key: LocalKey, obj: bytes) -> None:
        self._store[key] = obj


def _with_fasteners() -> _LockedDict:
    lock = import_module('fasteners').ReaderWriterLock()
    return _LockedDict(
        _Held(lock.acquire_read_lock, lock.release_read_lock),
        _Held(lock.acquire_write_lock, lock.release_write_lock),
    )


def _with_cereggii() -> _LockedDict:
    lock = import_module('cereggii.locks').ReadersWriterLock()
    return _LockedDict(lock.reader(), lock.writer())


def _proxystores() -> Any:
    # With its data in its configuration, as it has no len().
    module = import_module('proxystore.connectors.local')
    return module.LocalConnector(include_data_in_config=True)


PEERS = (
    Peer(OURS, 'this connector, with its own lock', '#e8590c', LocalConnector),
    Peer(
        LOCK,
        'a dict, each call under one threading.Lock',
        '#1c7ed6',
        lambda: _LockedDict(threading.Lock()),
    ),
    Peer(
        'RLock',
        'a dict, each call under one threading.RLock',
        '#15aabf',
        lambda: _LockedDict(threading.RLock()),
    ),
    Peer(
        FAIR,
        'this connector, lock=RWLockFair()',
        '#2f9e44',
        lambda: LocalConnector(lock=RWLockFair()),
    ),
    Peer(
        'RWLockRead',
        'this connector, lock=RWLockRead()',
        '#94a80e',
        lambda: LocalConnector(lock=RWLockRead()),
    ),
    Peer(
        'RWLockWrite',
        'this connector, lock=RWLockWrite()',
        '#a07850',
        lambda: LocalConnector(lock=RWLockWrite()),
    ),
    Peer(
        'fasteners',
        'a dict under fasteners.ReaderWriterLock',
        '#9c5fd6',
        _with_fasteners,
        needs='fasteners',
    ),
    Peer(
        'cereggii',
        'a dict under cereggii.locks.ReadersWriterLock',
        '#e64980',
        _with_cereggii,
        needs='cereggii',
    ),
    Peer(
        'AtomicDict',
        'a cereggii.AtomicDict',
        '#7a8aa0',
        _AtomicDict,
        needs='cereggii',
        lacks='Its batches are not atomic.',
    ),
    Peer(
        PROXYSTORE,
        "ProxyStore's own LocalConnector",
        '#868686',
        _proxystores,
        needs='proxystore',
        lacks='It takes no lock, and its batches are not atomic.',
    ),
)


def is_missing(package: str) -> bool:
    """Tell if a package is needed that cannot be imported."""
    try:
        import_module(package or __name__)
    except ImportError:
        return True
    return False


def find_peers() -> list[Peer]:
    """Get the peers that can be measured here, ours first."""
    return [peer for peer in PEERS if not is_missing(peer.needs)]


def count(connector: Any) -> int:
    """Count the objects of any peer's connector."""
    try:
        return len(connector)
    except TypeError:
        return len(connector.config()['store_dict'])
