"""Throughput through ProxyStore's Store: nine gets, a put and an evict.

To deserialize is either pure computing, or it waits as if for a disk. The
cache of the Store is off.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks import engine
from benchmarks.peers import Peer


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each way to use Stores and number of threads."""
    for waiting, shared, threads in itertools.product(
        (False, True), (True, False), (1, 2, 4, 8)
    ):
        run = partial(_run, waiting, shared, threads, effort.seconds)
        stores = 'one Store for all' if shared else 'a Store a thread'
        task = '1 ms of waiting' if waiting else 'computing'
        column = engine.Column(f'{threads} thread{"s" * (threads > 1)}', 'k/s')
        yield engine.Case(f'{stores}, {task}', [column], effort.rounds, run)


def _wait_and_loads(data: bytes) -> Any:
    time.sleep(0.001)
    return import_module('proxystore.serialize').deserialize(data)


def _run(
    waiting: bool, shared: bool, threads: int, seconds: float, peer: Peer
) -> tuple[float]:
    store = partial(
        import_module('proxystore.store').Store,
        connector=peer.make(),
        cache_size=0,
        deserializer=_wait_and_loads if waiting else None,
    )
    stores = [store(f'{n}') for n in range(1 if shared else threads)]
    stored = [stores[0].put(engine.OBJECT) for _ in range(64)]
    chunks = [stored[start : start + 9] for start in range(len(stored) - 9)]
    workers = [
        partial(engine.keep_on, chunks, partial(_use, store))
        for store in (stores * threads if shared else stores)
    ]
    stints = engine.load(workers, seconds)
    return (engine.rate(stints, stints),)


def _use(store: Any, keys: Sequence[Any]) -> int:
    """Get some objects, put one and evict it."""
    for key in keys:
        store.get(key)
    store.evict(store.put(engine.OBJECT))
    return len(keys) + 1
