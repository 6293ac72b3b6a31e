"""Values: buffers of bytes are stored, buffers of addresses are refused."""

from __future__ import annotations

import array
import ctypes
import mmap
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_local import LocalConnector


class Pair(ctypes.Structure):
    _fields_ = (('number', ctypes.c_int32), ('other', ctypes.c_double))


class Bytes(bytes):
    """What may run code of its own when it is freed."""


class Named(ctypes.Structure):
    _fields_ = (('OXP', ctypes.c_int32),)  # Letters of addresses, as a name.


class Pointing(ctypes.Structure):
    _fields_ = (('number', ctypes.c_int32), ('text', ctypes.c_char_p))


def mapped() -> mmap.mmap:
    view = mmap.mmap(-1, 8)
    view[:] = b'in a map'
    return view


BUFFERS: dict[str, Callable[[], Any]] = {
    'bytearray': lambda: bytearray(b'bytes'),
    'subclass of bytes': lambda: Bytes(b'bytes'),
    'memoryview': lambda: memoryview(b'bytes'),
    'every other': lambda: memoryview(bytearray(b'b-y-t-e-s'))[::2],
    'backwards': lambda: memoryview(b'bytes')[::-1],
    'rows': lambda: memoryview(bytes(24)).cast('B', (2, 3, 4)),
    'no dimension': lambda: memoryview(b'b').cast('B', ()),
    'empty': lambda: memoryview(b''),
    'array': lambda: array.array('d', [0.5, 1.5]),
    'mmap': mapped,
    'ctypes numbers': lambda: (ctypes.c_int16 * 3)(1, 2, 3),
    'ctypes structure': lambda: Pair(5, 0.5),
    'ctypes field names': lambda: Named(5),
}


def released() -> memoryview:
    view = memoryview(b'bytes')
    view.release()
    return view


def closed() -> mmap.mmap:
    view = mapped()
    view.close()
    return view


REFUSED: dict[str, Callable[[], Any]] = {
    'ctypes object': lambda: ctypes.py_object('spam'),
    'ctypes objects': ctypes.py_object * 2,
    'ctypes text': lambda: ctypes.c_char_p(b'spam'),
    'ctypes wide text': lambda: ctypes.c_wchar_p('spam'),
    'ctypes address': lambda: ctypes.c_void_p(1),
    'ctypes pointer': lambda: ctypes.pointer(ctypes.c_int(5)),
    'ctypes function': lambda: ctypes.CFUNCTYPE(None)(bool),
    'ctypes structure': lambda: Pointing(5, b'spam'),
    'ctypes structures': Pointing * 2,
    'released memoryview': released,
    'closed mmap': closed,
    'text': lambda: 'text',
    'number': lambda: 5,
    'list': lambda: [1, 2],
    'none': lambda: None,
}

try:
    import numpy
except ModuleNotFoundError:
    pass
else:
    BUFFERS |= {
        'Fortran order': lambda: numpy.asfortranarray([[1, 2], [3, 4]]),
        'columns': lambda: numpy.arange(12).reshape(3, 4)[:, ::2],
        'complex': lambda: numpy.array([1 + 2j], dtype='complex64'),
        'fields': lambda: numpy.ones(2, dtype=[('O', 'i4'), ('X', 'f8')]),
        'texts': lambda: numpy.array(['spam', 'eggs']),
    }
    REFUSED |= {
        'objects': lambda: numpy.array(['spam', None], dtype=object),
        'fields of objects': lambda: numpy.ones(2, [('a', 'i4'), ('b', 'O')]),
        'nested fields': lambda: numpy.ones(2, [('a', [('b', 'O')], 2)]),
        'datetimes': lambda: numpy.array(['2026-01-01'], 'datetime64[s]'),
    }


def set_value(connector: LocalConnector, value: Any) -> Any:
    key = connector.new_key()
    connector.set(key, value)
    return key


WRITES: dict[str, Callable[[LocalConnector, Any], Any]] = {
    'put': lambda connector, value: connector.put(value),
    'put_batch': lambda connector, value: connector.put_batch(
        [value, bytearray()]
    )[0],
    'set': set_value,
}

by_each_write = pytest.mark.parametrize('write', WRITES.values(), ids=WRITES)


def test_numpy_is_tested() -> None:
    pytest.importorskip('numpy')


@by_each_write
def test_bytes_are_kept_as_the_same_object(write: Any) -> None:
    value, connector = bytes(1000), LocalConnector()
    assert connector.get(write(connector, value)) is value


@by_each_write
@pytest.mark.parametrize('kind', BUFFERS)
def test_a_buffer_comes_back_byte_for_byte(kind: str, write: Any) -> None:
    value, connector = BUFFERS[kind](), LocalConnector()
    stored = connector.get(write(connector, value))
    assert type(stored) is bytes
    assert stored == memoryview(value).tobytes()


@by_each_write
@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_not_bytes_like_raises_type_error(
    kind: str,
    write: Any,
) -> None:
    value, connector = REFUSED[kind](), LocalConnector()
    message = rf'not {type(value).__name__}: .+\. .*Store serializes'
    with pytest.raises(TypeError, match=message) as caught:
        write(connector, value)
    assert str(caught.value.__cause__) in str(caught.value)
    assert len(connector) == 0
