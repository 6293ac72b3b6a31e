"""Price of set and get, by the size of the object (median of the rounds)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from functools import partial

from benchmarks import engine
from benchmarks.peers import Peer

# The largest take long to make, so all peers share one.
_zeros = lru_cache(1)(bytes)


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each size."""
    for name, size in (
        ('1 B', 1),
        ('1 KiB', 2**10),
        ('1 MiB', 2**20),
        ('32 MiB', 2**25),
        ('1 GiB', 2**30),
    ):
        run = partial(_run, size, effort)
        column = engine.Column(name, 'ns')
        yield engine.Case('set and get', [column], effort.rounds, run)


def _run(size: int, effort: engine.Effort, peer: Peer) -> tuple[float, ...]:
    statement = f'{engine.SET}; connector.get(key)'
    return engine.nanoseconds(statement, effort, peer, value=_zeros(size))
