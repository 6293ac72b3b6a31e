"""Owned proxies in reference cycles, dropped by threads that use the Store.

The garbage collector runs their finalizers, which evict, at any moment: also
while the thread is in the middle of another operation.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

from benchmarks import engine
from benchmarks.peers import count
from benchmarks.peers import find_peers
from benchmarks.peers import Peer

THREADS = 4
KEPT = 16
# So many allocations after a collection comes the next.
THRESHOLD = 30
# Seconds without progress of any thread that make a deadlock.
LIMIT = 2


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make the only case. A peer that deadlocks has no second number."""

    def run(peer: Peer) -> tuple[float, ...]:
        program = 'from benchmarks.workloads.owned import use; use()'
        child = subprocess.run(
            [sys.executable, '-c', program, peer.name, str(effort.cycles)],
            capture_output=True,
            text=True,
            check=False,
        )
        if child.returncode == 0:
            return 0, int(child.stdout)
        if 'Timeout (' in child.stderr:
            return (1,)
        raise RuntimeError(f'{peer.name}: {child.stderr}')

    columns = [
        engine.Column(name, f'in {effort.rounds} runs', sum)
        for name in ('deadlocks', 'objects lost or left')
    ]
    table = 'readers beside finalizers'
    yield engine.Case(table, columns, effort.rounds, run)


def use() -> None:
    """Use a Store, in a child: print how many objects are lost or left."""
    name, cycles = sys.argv[1:]
    (peer,) = (peer for peer in find_peers() if peer.name == name)
    connector = peer.make()
    # Without a cache every get reaches the connector.
    store = import_module('proxystore.store').Store(
        'owned',
        connector,
        cache_size=0,
        register=True,
    )
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    kept = [store.put(engine.OBJECT) for _ in range(KEPT)]

    def drop_and_get(_: int) -> int:
        lost = 0
        for _ in range(int(cycles)):
            cycle: list[Any] = [store.owned_proxy(engine.OBJECT)]
            cycle.append(cycle)
            lost += sum(store.get(key) != engine.OBJECT for key in kept)
            lost += connector.get_batch(kept).count(None)
            store.evict(store.put(engine.OBJECT))
            # Somebody got on. The watch starts anew.
            faulthandler.dump_traceback_later(LIMIT, exit=True)
        return lost

    gc.set_threshold(THRESHOLD)
    with ThreadPoolExecutor(THREADS) as pool:
        lost = sum(pool.map(drop_and_get, range(THREADS)))
    gc.collect()
    print(lost + abs(count(connector) - KEPT), flush=True)
    # ProxyStore has something to do at exit for each proxy, which takes long.
    os._exit(0)
