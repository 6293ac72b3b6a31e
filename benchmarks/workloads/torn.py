"""Torn batches: readers count the objects while another thread puts a batch.

They see none of the batch or all of it. Anything else is a torn state.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import wait

from benchmarks import engine
from benchmarks.peers import count
from benchmarks.peers import Peer

READERS = 4
# Threads take turns this often, so that a second shows what is rare.
SWITCH = 1e-6


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make the only case."""
    values = [engine.VALUE] * engine.BATCH

    def run(peer: Peer) -> tuple[float]:
        # A new connector for each batch: it is empty or holds the batch.
        latest = [peer.make()]

        def write(ready: threading.Barrier, stop: threading.Event) -> None:
            ready.wait(engine.PATIENCE)
            for _ in range(effort.batches):
                connector = latest[0] = peer.make()
                connector.put_batch(values)

        def read(ready: threading.Barrier, stop: threading.Event) -> list[int]:
            seen = []
            ready.wait(engine.PATIENCE)
            while True:
                seen.append(count(latest[0]))
                if stop.is_set():
                    return seen

        sys.setswitchinterval(SWITCH)
        with engine.crew([write] + [read] * READERS) as (writer, *readers):
            wait([writer])
        seen = [number for reader in readers for number in reader.result()]
        torn = sum(number not in {0, engine.BATCH} for number in seen)
        return (torn / len(seen) * 100_000,)

    column = engine.Column('torn states seen', 'in 100,000', max)
    table = 'readers beside put_batch'
    yield engine.Case(table, [column], effort.rounds, run)
