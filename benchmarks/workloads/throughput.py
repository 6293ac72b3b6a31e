"""Throughput of threads that get and set at random (median of the rounds)."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from typing import Any

from benchmarks import engine
from benchmarks.peers import Peer


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each number of threads and share of writes."""
    for threads in (1, 2, 4, 8, 16, 32):
        table = f'{threads} thread{"s" * (threads > 1)}'
        for percent in (0, 1, 10, 50, 100):
            run = functools.partial(_run, threads, percent, effort.seconds)
            column = engine.Column(f'{percent} % writes', 'k/s')
            yield engine.Case(table, [column], effort.rounds, run)


def _run(
    threads: int, percent: int, seconds: float, peer: Peer
) -> tuple[float]:
    walk = functools.partial(_walk, engine.filled(peer))
    workers = [
        functools.partial(engine.keep_on, _path(thread, percent), walk)
        for thread in range(threads)
    ]
    stints = engine.load(workers, seconds)
    return (engine.rate(stints, stints),)


@functools.cache
def _path(seed: int, percent: int) -> list[list[tuple[bool, Any]]]:
    """Get chunks of random operations: whether to write, and which key."""
    rng = random.Random(seed)
    return [
        [
            (rng.random() * 100 < percent, rng.choice(engine.KEYS))
            for _ in range(100)
        ]
        for _ in range(40)
    ]


def _walk(connector: Any, chunk: list[tuple[bool, Any]]) -> int:
    """Get and set along a part of a path."""
    value = engine.VALUE
    for write, key in chunk:
        if write:
            connector.set(key, value)
        else:
            connector.get(key)
    return len(chunk)
