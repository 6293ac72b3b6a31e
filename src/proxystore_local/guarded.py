"""A dict that threads share, in which each operation is atomic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeAlias
from typing import TypeVar

T = TypeVar('T')

# A function in C, and its arguments.
Call: TypeAlias = tuple[Callable[..., T], tuple[Any, ...]]


class GuardedDict:
    """A dict and the lock that guards it; subclasses say how.

    Attributes:
        store: The dict.
        store_id: Identifies the data in this process.
        rwlock: The lock that a user has chosen, if any.
        seqlock: Else a sequence lock, which connectors try themselves.
    """

    __slots__ = ('__weakref__', 'rwlock', 'seqlock', 'store', 'store_id')

    def __init__(
        self, store: dict[Any, bytes], store_id: str, rwlock: Any = None
    ) -> None:
        self.store = store
        self.store_id = store_id
        self.rwlock = rwlock
        self.seqlock: Any = None

    def shared(self, prepare: Callable[..., Call[T]], *arguments: Any) -> T:
        """Read beside others: do a call that is prepared anew for each try."""
        raise NotImplementedError

    def exclusive(self, function: Callable[..., T], *arguments: Any) -> T:
        """Write alone: call a function in C."""
        raise NotImplementedError

    def get(self, key: Any) -> bytes | None:
        """Get the value of a key, or `None`."""
        found: bytes | None = self.shared(_call, self.store.get, key)
        return found

    def exists(self, key: Any) -> bool:
        """Check if there is a key."""
        found: bool = self.shared(_call, self.store.__contains__, key)
        return found

    def get_batch(self, keys: tuple[Any, ...]) -> list[bytes | None]:
        """Get the values of many keys."""
        return self.shared(_fill_list, self.store.get, keys)

    def put_batch(self, items: dict[Any, bytes]) -> None:
        """Set the values of many new keys."""
        try:
            self.exclusive(self.store.update, items)
        except MemoryError:
            # Room for some was found, and none for others.
            for key in items:
                self.exclusive(self.store.pop, key, None)
            raise

    def snapshot(self) -> dict[Any, bytes]:
        """Copy the dict."""
        return self.shared(_fill_dict, self.store)

    def __len__(self) -> int:
        count: int = self.shared(_call, len, self.store)
        return count


def _call(function: Callable[..., T], *arguments: Any) -> Call[T]:
    return function, arguments


def _fill_list(function: Callable[..., T], items: Any) -> Call[list[T]]:
    return [].__iadd__, (map(function, items),)


def _fill_dict(items: Any) -> Call[dict[Any, Any]]:
    return {}.__ior__, (items,)
