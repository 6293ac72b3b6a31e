"""The peers: everything that is measured, behind one connector shape."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from typing import NamedTuple

from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey


class Peer(NamedTuple):
    """What it is, what makes a connector of it, and the package it needs.

    Connectors other than a `LocalConnector` have what workloads use.
    """

    about: str
    make: Callable[[], Any]
    needs: str = 'proxystore_local'


class _Dict:
    """Keys as ProxyStore's, and a configuration, as a `Store` logs it."""

    def config(self) -> dict[str, Any]:
        return {}

    def new_key(self) -> LocalKey:
        return LocalKey(str(uuid.uuid4()))


class _LockedDict(_Dict):
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


class _Held(AbstractContextManager[None]):
    """A lock that is acquired and released by two methods, for `with`."""

    def __init__(
        self, acquire: Callable[[], object], release: Callable[[], object]
    ) -> None:
        self._acquire = acquire
        self._release = release

    def __enter__(self) -> None:
        self._acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._release()


class _AtomicDict(_Dict):
    """A `cereggii.AtomicDict`, which is safe in itself."""

    def __init__(self) -> None:
        self._store = import_module('cereggii').AtomicDict()

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


def _with_fasteners() -> _LockedDict:
    lock = import_module('fasteners').ReaderWriterLock()
    return _LockedDict(
        _Held(lock.acquire_read_lock, lock.release_read_lock),
        _Held(lock.acquire_write_lock, lock.release_write_lock),
    )


def _proxystores() -> Any:
    # With its data in its configuration, as it has no len().
    module = import_module('proxystore.connectors.local')
    return module.LocalConnector(include_data_in_config=True)


PEERS = {
    'ours': Peer('this connector, with its own lock', LocalConnector),
    'Lock': Peer(
        'a dict, each call under one `threading.Lock`',
        lambda: _LockedDict(threading.Lock()),
    ),
    'RWLockFair': Peer(
        'this connector, `lock=RWLockFair()` of readerwriterlock',
        lambda: LocalConnector(lock=RWLockFair()),
    ),
    'fasteners': Peer(
        'a dict under `fasteners.ReaderWriterLock`',
        _with_fasteners,
        needs='fasteners',
    ),
    'AtomicDict': Peer(
        'a `cereggii.AtomicDict`; its batches are not atomic',
        _AtomicDict,
        needs='cereggii',
    ),
    'ProxyStore': Peer(
        "ProxyStore's own `LocalConnector`, which takes no lock; its batches "
        'are not atomic',
        _proxystores,
        needs='proxystore',
    ),
}


def is_missing(package: str) -> bool:
    """Tell if a package is not installed."""
    return find_spec(package) is None
