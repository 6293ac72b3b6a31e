"""Price of set after more and more threads have read (median or best)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from benchmarks import engine
from benchmarks.peers import Peer


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each number of threads, and one for finished ones."""
    table = 'set after others have read'
    for alive in (0, 1, 2, 4, 8, 16, 32):
        column = engine.Column(f'{alive} alive', 'ns')
        run = partial(_run, alive, 0, effort)
        yield engine.Case(table, [column], effort.processes, run)
    column = engine.Column(f'{effort.ended:,} ended', 'ns')
    run = partial(_run, 0, effort.ended, effort)
    yield engine.Case(table, [column], 1, run)


def _run(
    alive: int, ended: int, effort: engine.Effort, peer: Peer
) -> tuple[float, ...]:
    connector = peer.make()

    def read_and_park(ready: threading.Barrier, stop: threading.Event) -> None:
        try:
            connector.get(engine.KEYS[0])
        finally:
            ready.wait(engine.PATIENCE)
        stop.wait()

    for _ in range(ended):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(connector.get, engine.KEYS[0]).result()
    with engine.crew([read_and_park] * alive):
        return engine.nanoseconds(engine.SET, effort, peer, connector)
