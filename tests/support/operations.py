"""The operations of a connector, and what each does to a dict.

All tests of "each operation" take them from OPERATIONS.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

Model: TypeAlias = dict[LocalKey, bytes]

# Two keys that are in the dict, and what it holds.
KEYS = A, B = LocalKey('a'), LocalKey('b')
CONTENTS: Model = {A: b'a0', B: b'b0'}


@dataclass(frozen=True)
class Operation:
    """One operation of a connector.

    Attributes:
        name: Name of the connector's method.
        takes: What its arguments are: `key`, `keys`, `value`, `values`.
        model: Does to a dict what the operation does to the connector. It is
            given the dict, what the operation returned (which the keys that
            it minted are known from), and the arguments. It returns what the
            operation must have returned.
        writes: If it must run alone.
    """

    name: str
    takes: Sequence[str]
    model: Callable[..., Any]
    writes: bool = False

    @property
    def whole(self) -> bool:
        """If it is on the whole dict, and so on other threads' keys."""
        return not self.takes

    def arguments(
        self,
        value: bytes,
        keys: Sequence[LocalKey] = KEYS,
        number: int = 0,
    ) -> tuple[Any, ...]:
        """What to call the method with.

        Args:
            value: The value, or each of as many values as there are keys.
            keys: The keys.
            number: Which of the keys, for an operation on one.
        """
        given = {
            'key': keys[number],
            'keys': keys,
            'value': value,
            'values': [value] * len(keys),
        }
        return tuple(given[it] for it in self.takes)

    def __call__(
        self,
        connector: LocalConnector,
        value: bytes = b'1',
        keys: Sequence[LocalKey] = KEYS,
        number: int = 0,
    ) -> Any:
        """Do the operation; see `arguments`."""
        method = getattr(connector, self.name)
        return method(*self.arguments(value, keys, number))


def _put(model: Model, key: LocalKey, value: Any) -> LocalKey:
    model[key] = bytes(value)
    return key


def _put_batch(model: Model, keys: Any, values: Any) -> Any:
    model.update(zip(keys, map(bytes, values), strict=True))
    return keys


def _set(model: Model, _: None, key: LocalKey, value: Any) -> None:
    model[key] = bytes(value)


def _evict(model: Model, _: None, key: LocalKey) -> None:
    model.pop(key, None)


def _get_batch(model: Model, _: Any, keys: Any) -> list[bytes | None]:
    return [model.get(key) for key in keys]


def _config(model: Model, _: Any) -> dict[str, Any]:
    return {'include_data_in_config': True, 'store_dict': model}


OPERATIONS = {
    operation.name: operation
    for operation in [
        Operation('put', ['value'], _put, writes=True),
        Operation('put_batch', ['values'], _put_batch, writes=True),
        Operation('set', ['key', 'value'], _set, writes=True),
        Operation('evict', ['key'], _evict, writes=True),
        Operation('get', ['key'], lambda model, _, key: model.get(key)),
        Operation('exists', ['key'], lambda model, _, key: key in model),
        Operation('get_batch', ['keys'], _get_batch),
        Operation('config', [], _config),
        Operation('__len__', [], lambda model, _: len(model)),
    ]
}
WRITES = [name for name, it in OPERATIONS.items() if it.writes]
READS = [name for name, it in OPERATIONS.items() if not it.writes]
