"""What is stored, and what is refused."""

from __future__ import annotations

import re
from typing import Any

from typing_extensions import Buffer


def as_bytes(obj: Buffer) -> bytes:
    """Get an object as `bytes`: itself, or a copy that nobody can change."""
    if type(obj) is bytes:
        return obj
    try:
        with memoryview(obj) as view:
            # The names of fields are between colons. Z is a string's address,
            # but before d, f or g a complex number.
            form = re.sub(':.*?:', '', view.format)
            if re.search('[&OPXz]|Z(?![dfg])', form):
                raise TypeError('its buffer holds addresses of objects')
            return view.tobytes()
    except (BufferError, TypeError, ValueError) as error:
        raise TypeError(
            'expected bytes or another bytes-like object, not '
            f"{type(obj).__name__}: {error}. ProxyStore's Store serializes "
            'objects; without a Store, serialize them first.',
        ) from error


def check_batch(batch: Any, refused: type, items: str) -> None:
    """Refuse a single item: a text, a buffer, or one of the refused type."""
    if type(batch) is list:
        return
    if not isinstance(batch, (str, refused)):
        try:
            memoryview(batch)
        except TypeError:
            return
        except (BufferError, ValueError):  # It has been closed, for example.
            pass
    raise TypeError(
        f'expected an iterable of {items}, not {type(batch).__name__}',
    )
