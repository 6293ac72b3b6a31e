"""In-process connector that threads share."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from typing import Any
from typing import Self

from typing_extensions import Buffer

from proxystore_local.guarded import GuardedDict
from proxystore_local.keys import LocalKey
from proxystore_local.keys import mint
from proxystore_local.keys import mint_batch
from proxystore_local.registry import register
from proxystore_local.rwlocked import RWLock
from proxystore_local.rwlocked import RWLockedDict
from proxystore_local.seqlocked import SeqlockedDict
from proxystore_local.values import as_bytes
from proxystore_local.values import check_batch

_REDIS = 'proxystore.connectors.redis.RedisConnector'
# `key in _NOTHING` is false, or raises TypeError if the key is not hashable.
_NOTHING: dict[Any, Any] = {}


class LocalConnector:
    """Connector that stores objects in the local process's memory.

    Any number of threads can share one connector, and so can finalizers and
    signal handlers. Operations that only read (`get`, `exists`, `get_batch`,
    `len()`, and `config` when it includes the data) run side by side; those
    that write (`put`, `set`, `evict`, `put_batch`) exclude each other. Batches
    are atomic. Connectors on the same data share one lock; code that uses the
    dict directly does not acquire it. Batches do not call `put` or `get` of a
    subclass.

    Args:
        store_dict: Plain dict to store data in: itself, not a copy. If not
            specified, a new empty dict.
        include_data_in_config: Include a snapshot of the data in the
            configuration, and so in pickles and copies. Meant for testing.
        lock: Lock of `readerwriterlock.rwlock`, such as `RWLockFair()`. These
            can deadlock with finalizers and signal handlers: see
            [which lock](choosing-a-lock.md#which-lock). If not specified, the
            lock that the data already has, or else the connector's own.
        store_id: Identifier of data, from the configuration of another
            connector, to use that data and its lock. If no connector in this
            interpreter has it, a new empty dict is used, with a
            RuntimeWarning.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If a connector on the same data has another lock, or both
            `store_dict` and `store_id` are specified.

    Examples:
        >>> connector = LocalConnector()
        >>> key = connector.put(b'spam')
        >>> connector.get(key)
        b'spam'
    """

    # Methods on one key try the sequence lock once, as a call would double its
    # price; seqlocked.py has its rule and hazards. All else is left to _data.
    # What could call back into the connector, a caller's iterable or buffer,
    # is consumed or copied before.

    def __init__(
        self,
        store_dict: dict[LocalKey, bytes] | None = None,
        *,
        include_data_in_config: bool = False,
        lock: RWLock | None = None,
        store_id: str | None = None,
    ) -> None:
        if store_dict is not None and store_id is not None:
            raise ValueError('expected store_dict or store_id, not both.')
        store: dict[Any, bytes] = {} if store_dict is None else store_dict
        if type(store) is not dict:
            raise TypeError(
                f'store_dict must be a plain dict, not {type(store).__name__}:'
                ' any other may run code of its own as it is used.',
            )
        if not isinstance(lock, RWLock | None):
            raise TypeError(
                'lock must be a lock of readerwriterlock.rwlock, such as '
                f'RWLockFair(), not {lock!r}.',
            )
        if not isinstance(store_id, str | None):
            raise TypeError(
                f'store_id must be the text in config(), not {store_id!r}.',
            )
        new_id = f'{platform.node()}/{os.getpid()}/{mint().id}'
        name = new_id if store_id is None else store_id
        made: GuardedDict = SeqlockedDict(store, name)
        if lock is not None:
            made = RWLockedDict(store, name, lock)
        data = register(made)
        if lock is not None and data.rwlock is not lock:
            raise ValueError(
                'the data has another lock already, and connectors on it share'
                ' one: pass the same lock object to each, or none.',
            )
        if store_id is not None and data is made:
            warnings.warn(
                f'the data of store_id {store_id!r} (host/process/identifier) '
                'is not in this interpreter, or was freed with its last '
                'connector: this connector is empty. For other processes and '
                f'interpreters use {_REDIS}, for example.',
                RuntimeWarning,
                stacklevel=2,
            )
        self._data = data
        self._store = data.store
        self._get = data.store.get
        self._include_data_in_config = include_data_in_config

    def put(self, obj: Buffer) -> LocalKey:
        """Put a serialized object in the store.

        Args:
            obj: Serialized object. `bytes` are stored as they are; any other
                bytes-like object is copied to `bytes`.

        Returns:
            Key which can be used to retrieve the object.

        Raises:
            TypeError: If the object is not bytes-like, or consists of
                addresses, such as an array of Python objects.

        Examples:
            >>> key = connector.put(b'spam')
        """
        key = mint()
        LocalConnector.set(self, key, obj)
        return key

    def get(self, key: LocalKey | tuple[Any, ...]) -> bytes | None:
        """Get the serialized object associated with the key.

        Args:
            key: Key associated with the object to retrieve.

        Returns:
            Serialized object or `None` if the object does not exist.

        Raises:
            TypeError: If the key is not hashable.

        Examples:
            >>> connector.get(connector.put(b'spam'))
            b'spam'
        """
        lock = self._data.seqlock
        try:
            stamp = lock.stamp
        except AttributeError:
            pass
        else:
            value = self._get(key)  # hazard 6
            try:
                if lock.stamp is stamp:
                    return value
            except AttributeError:
                pass
        return self._data.get(key)

    def exists(self, key: LocalKey | tuple[Any, ...]) -> bool:
        """Check if an object associated with the key exists.

        Args:
            key: Key potentially associated with stored object.

        Returns:
            If an object associated with the key exists.

        Raises:
            TypeError: If the key is not hashable.

        Examples:
            >>> connector.exists(connector.put(b'spam'))
            True
        """
        lock = self._data.seqlock
        try:
            stamp = lock.stamp
            found = key in self._store
            if lock.stamp is stamp:
                return found
        except AttributeError:
            pass
        return self._data.exists(key)

    def evict(self, key: LocalKey | tuple[Any, ...]) -> None:
        """Evict the object associated with the key, if there is one.

        Args:
            key: Key associated with object to evict.

        Raises:
            TypeError: If the key is not hashable.

        Examples:
            >>> connector.evict(connector.put(b'spam'))
        """
        store = self._store
        lock = self._data.seqlock
        try:
            after = lock.stamp + 1.0
            if key not in store:
                return
            del lock.stamp
            try:
                del store[key]
                return
            finally:
                lock.last = after
                lock.stamp = after
        except (AttributeError, KeyError):  # Another write is faster.
            pass
        self._data.exclusive(store.pop, key, None)

    def set(self, key: LocalKey | tuple[Any, ...], obj: Buffer) -> None:
        """Set the object associated with a key.

        Args:
            key: Key that the object will be associated with.
            obj: Object to associate with the key, taken as by `put()`.

        Raises:
            TypeError: As for `put()`, or if the key is not hashable.

        Examples:
            >>> connector.set(connector.new_key(), b'spam')
        """
        if type(obj) is not bytes:
            obj = as_bytes(obj)
        _ = key in _NOTHING  # hazard 1
        lock = self._data.seqlock
        try:
            after = lock.stamp + 1.0
            del lock.stamp
            try:
                self._store[key] = obj
                return
            finally:
                lock.last = after
                lock.stamp = after
        except AttributeError:
            pass
        self._data.exclusive(self._store.__setitem__, key, obj)

    def put_batch(self, objs: Iterable[Buffer]) -> list[LocalKey]:
        """Put a batch of serialized objects in the store, all at once.

        Args:
            objs: Serialized objects, in any iterable. It is consumed, and
                every object checked, before any is stored.

        Returns:
            Keys which can be used to retrieve the objects, in their order.

        Raises:
            TypeError: If `objs` is a single object, a mapping or not iterable,
                or any object not as for `put()`; none is stored then.

        Examples:
            >>> keys = connector.put_batch([b'spam', b'eggs'])
        """
        single = 'bytes-like objects (put() takes a single one)'
        check_batch(objs, Mapping, single)
        values: list[Any] = list(objs)
        if [*map(type, values)].count(bytes) != len(values):
            values = [as_bytes(obj) for obj in values]
        keys = mint_batch(len(values))
        self._data.put_batch(dict(zip(keys, values)))
        return keys

    # list[Any]: lists are invariant, and ProxyStore's protocol names its type.
    def get_batch(
        self, keys: Iterable[LocalKey | tuple[Any, ...]]
    ) -> list[Any]:
        """Get a batch of serialized objects as they are at one moment.

        Args:
            keys: Keys associated with objects to retrieve, in any iterable. It
                is consumed before any object is read.

        Returns:
            List of `bytes`, in the order of `keys`, with `None` for each
            object that does not exist.

        Raises:
            TypeError: If `keys` is a single key or not iterable, or any key
                not hashable.

        Examples:
            >>> keys = connector.put_batch([b'spam', b'eggs'])
            >>> connector.get_batch([*keys, connector.new_key()])
            [b'spam', b'eggs', None]
        """
        check_batch(keys, LocalKey, 'keys (get() takes a single key)')
        return self._data.get_batch(tuple(keys))

    def new_key(self, obj: Buffer | None = None) -> LocalKey:
        """Create a new key. Nothing is stored.

        Args:
            obj: Object which the key will be associated with. Ignored.

        Returns:
            Key for `set()`, which can then be used to retrieve the object.

        Examples:
            >>> connector.exists(connector.new_key())
            False
        """
        return mint()

    def config(self) -> dict[str, Any]:
        """Get the connector configuration.

        A connector that is made from it in this interpreter uses the same
        data, as long as any connector does.

        Returns:
            Dictionary of `include_data_in_config` and, if that is true, a
            snapshot of the data at one moment as `store_dict`, else the
            `store_id` of the data.

        Examples:
            >>> key = connector.put(b'spam')
            >>> LocalConnector.from_config(connector.config()).get(key)
            b'spam'
        """
        include = self._include_data_in_config
        config: dict[str, Any] = {'include_data_in_config': include}
        if include:
            config['store_dict'] = self._data.snapshot()
        else:
            config['store_id'] = self._data.store_id
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Create a new connector instance from a configuration.

        Args:
            config: Configuration returned by `config()`. A `store_dict` in it
                is copied.

        Returns:
            Connector on the data that `store_id` names, or on a new dict.

        Raises:
            TypeError: If this is not such a configuration.

        Examples:
            >>> second = LocalConnector.from_config(connector.config())
            >>> second.config() == connector.config()
            True
        """
        try:
            options = {**config}
            if type(options.get('store_dict')) is dict:
                options['store_dict'] = options['store_dict'].copy()
            return cls(**options)
        except TypeError as error:
            raise TypeError(
                f'config must be what config() of a {cls.__name__} returned, '
                'a dict of include_data_in_config and either store_id or, if '
                f'that is true, store_dict: {error}',
            ) from error

    def close(self) -> None:
        """Close the connector.

        Does nothing, as other threads may go on using the connector. The data
        is freed with the last connector on it, or other user of the dict.

        Examples:
            >>> connector.close()
        """

    def __len__(self) -> int:
        """Count the objects."""
        return len(self._data)

    def __bool__(self) -> bool:
        """Be true even when empty, so that `connector or default` keeps it."""
        return True

    def __repr__(self) -> str:
        # Without the lock: a debugger may ask for it while that is held.
        lock = self._data.rwlock
        return (
            f'<{type(self).__name__} at {id(self):#x}: '
            f'{len(self._store)} stored, '
            f'include_data_in_config={self._include_data_in_config}, '
            f'lock={type(lock).__name__ if lock else "default"}>'
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._include_data_in_config:
            raise TypeError(
                f'cannot pickle or copy a {type(self).__name__}: its data '
                'lives in this process. Threads can share it; for processes '
                f'use {_REDIS}, for example, or include_data_in_config=True '
                'to send a snapshot.',
            )
        return type(self).from_config, (self.config(),)
