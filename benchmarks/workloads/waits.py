"""Waits of readers and writers that never pause, each call timed."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from functools import partial

from benchmarks import engine
from benchmarks.peers import Peer

PARTS = {'p50': 0.5, 'p99': 0.99, 'p99.9': 0.999, 'max': 1.0}


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each mix of readers and writers."""
    columns = []
    for who in ('read', 'write'):
        columns.append(engine.Column(f'{who}s', 'k/s'))
        for part in PARTS:
            combine = max if part == 'max' else statistics.median
            columns.append(engine.Column(f'{who} {part}', 'us', combine))
    for readers, writers in ((8, 1), (8, 8), (1, 8)):
        # One thread among nine has to wait for its turn of the GIL.
        run = partial(_run, readers, writers, 4 * effort.seconds)
        table = f'readers + writers: {readers} + {writers}'
        yield engine.Case(table, columns, effort.rounds, run)


def _run(
    readers: int, writers: int, seconds: float, peer: Peer
) -> list[float]:
    connector = engine.filled(peer)
    read = partial(_watch, connector.get, ())
    write = partial(_watch, connector.set, (engine.VALUE,))
    stints = engine.load([read] * readers + [write] * writers, seconds)
    found = []
    for group in (stints[:readers], stints[readers:]):
        waits = sorted(itertools.chain(*(stint.waits for stint in group)))
        found.append(engine.rate(group, stints))
        last = len(waits) - 1
        found += [waits[int(part * last)] / 1000 for part in PARTS.values()]
    return found


def _watch(
    operation: Callable[..., object],
    arguments: tuple[bytes, ...],
    ready: threading.Barrier,
    stop: threading.Event,
) -> engine.Stint:
    """Do one operation over and over, at least once, and time each."""
    times = []
    clock = time.perf_counter_ns
    ready.wait(engine.PATIENCE)
    begin = clock()
    for key in itertools.cycle(engine.KEYS):
        before = clock()
        operation(key, *arguments)
        after = clock()
        times.append(after - before)
        if stop.is_set():
            break
    return engine.Stint(begin, clock(), len(times), times)
