"""Values: buffers of bytes are stored, buffers of addresses are refused."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.operations import OPERATIONS

by_each_write = pytest.mark.parametrize('write', ['put', 'put_batch', 'set'])


def store_by(write: str, value: Any) -> bytes:
    """Write a value, and get what is stored then."""
    store: dict[LocalKey, bytes] = {}
    OPERATIONS[write](LocalConnector(store), value)
    _, stored = store.popitem()
    return stored


@by_each_write
def test_bytes_are_kept_as_the_same_object(write: str) -> None:
    value = bytes(1000)
    assert store_by(write, value) is value


def test_bytes_beside_others_are_kept_as_the_same_object() -> None:
    value, connector = bytes(1000), LocalConnector()
    key, _ = connector.put_batch([value, bytearray()])
    assert connector.get(key) is value


class Bytes(bytes):
    """What may run code of its own when it is freed."""


class Named(ctypes.Structure):
    _fields_ = (('OXP', ctypes.c_int32),)  # Letters of addresses, as a name.


class Pointing(ctypes.Structure):
    _fields_ = (('number', ctypes.c_int32), ('text', ctypes.c_char_p))


def numpy() -> Any:
    return pytest.importorskip('numpy')


BUFFERS: dict[str, Callable[[], Any]] = {
    'bytearray': lambda: bytearray(b'bytes'),
    'subclass of bytes': lambda: Bytes(b'bytes'),
    'every other': lambda: memoryview(b'b-y-t-e-s')[::2],
    'rows': lambda: memoryview(bytes(range(24))).cast('B', (2, 3, 4)),
    'numbers': lambda: array.array('d', [0.5, 1.5]),
    'field names': lambda: Named(5),
    'complex numbers': lambda: numpy().array([1 + 2j]),
    'Fortran order': lambda: numpy().asfortranarray([[1, 2], [3, 4]]),
}


@by_each_write
@pytest.mark.parametrize('make', BUFFERS.values(), ids=BUFFERS)
def test_a_buffer_comes_back_byte_for_byte(make: Any, write: str) -> None:
    value = make()
    stored = store_by(write, value)
    assert type(stored) is bytes
    assert stored == memoryview(value).tobytes()


def released() -> memoryview:
    view = memoryview(b'bytes')
    view.release()
    return view


class Closed:
    def __buffer__(self, flags: int) -> memoryview:  # Since 3.12.
        raise BufferError('it is closed')


REFUSED: dict[str, Callable[[], Any]] = {
    'object': lambda: ctypes.py_object('spam'),
    'address of text': lambda: ctypes.c_char_p(b'spam'),
    'address of wide text': lambda: ctypes.c_wchar_p('spam'),
    'address': lambda: ctypes.c_void_p(1),
    'pointer': lambda: ctypes.pointer(ctypes.c_int(5)),
    'function': lambda: ctypes.CFUNCTYPE(None)(bool),
    'structure': lambda: Pointing(5, b'spam'),
    'released memoryview': released,
    'closed buffer': Closed,
    'text': lambda: 'text',
    'number': lambda: 5,
}


@by_each_write
@pytest.mark.parametrize('make', REFUSED.values(), ids=REFUSED)
def test_what_is_not_bytes_like_raises_type_error(
    make: Any,
    write: str,
) -> None:
    value, connector = make(), LocalConnector()
    message = rf'not {type(value).__name__}: .+\. .*Store serializes'
    with pytest.raises(TypeError, match=message):
        OPERATIONS[write](connector, value)
    # Nor is it a batch.
    with pytest.raises(TypeError, match='iterable'):
        connector.put_batch(value)
    assert len(connector) == 0
