"""Memory that an object takes beyond its value, by `tracemalloc`.

These are the key, its place in the dict, and whatever the connector adds.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections import deque
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from benchmarks import engine
from benchmarks.peers import Peer


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case: a connector beside a dict with keys of the same kind."""

    def run(peer: Peer) -> tuple[float, float]:
        connector = peer.make()
        values = [engine.VALUE] * effort.objects
        put = _traced(lambda: deque(map(connector.put, values), 0))
        plain = _traced(lambda: {connector.new_key(): v for v in values})
        return put / effort.objects, plain / effort.objects

    columns = [
        engine.Column(name, 'bytes/obj', min) for name in ('put', 'plain dict')
    ]
    table = f'{effort.objects:,} objects'
    yield engine.Case(table, columns, effort.rounds, run)


def _traced(build: Callable[[], Any]) -> int:
    """Get the bytes that are allocated by a call and still in use after."""
    gc.collect()
    tracemalloc.start()
    built = build()
    gc.collect()
    in_use, _ = tracemalloc.get_traced_memory()
    del built
    tracemalloc.stop()
    return in_use
