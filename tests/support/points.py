"""Points at which CPython lets others in, one after the other."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from readerwriterlock import rwlock

import proxystore_local

# Whose points are stopped at. The second is for the tests of the tests.
FILES = (str(Path(proxystore_local.__file__).parent), rwlock.__file__)


def at_point(
    point: int,
    intrude: Callable[[], object],
    work: Callable[[], object],
    before: Callable[[], object] = bool,
) -> bool:
    """Do something, and call a function at a point where CPython may do so.

    That is when a function in FILES is entered, or when a call from there has
    returned. Backward jumps are not reached, nor what C calls, nor the end of
    a call of a class such as `tuple()`, which profilers are not told.

    Args:
        point: Number of the point, from 1; or 0 for none.
        intrude: Called there. What it raises is raised there.
        work: What to do.
        before: Called at each point before that one.

    Returns:
        If there was such a point.
    """
    reached = 0

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal reached
        if event == 'return':
            frame = frame.f_back
        elif event not in ('call', 'c_return'):
            return
        if frame and frame.f_code.co_filename.startswith(FILES):
            reached += 1
            if reached == point:
                sys.setprofile(None)
                intrude()
            else:
                before()

    # What the collector calls, such as callbacks of weak references, would
    # count as a point too, and what is raised there is not passed on.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return 0 < point <= reached
