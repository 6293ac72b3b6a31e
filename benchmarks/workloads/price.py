"""Price of a call: one thread, nobody else (median of the processes)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks import engine


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each operation."""
    size = engine.BATCH
    batch = {'number': effort.calls // size, 'calls': size}
    usual: dict[str, Any] = {}
    for name, statement, how in (
        ('get', 'connector.get(key)', usual),
        ('get missing', 'connector.get(missing)', usual),
        ('exists', 'connector.exists(key)', usual),
        ('len', 'len(connector)', usual),
        ('set', engine.SET, usual),
        ('put', 'connector.put(value)', usual),
        (
            'evict',
            'for k in keys: connector.evict(k)',
            {'number': 1, 'calls': size},
        ),
        ('new_key', 'connector.new_key()', usual),
        ('get_batch/obj', 'connector.get_batch(keys)', batch),
        ('put_batch/obj', 'connector.put_batch(values)', batch),
    ):
        yield engine.Case(
            'one thread',
            [engine.Column(name, 'ns')],
            effort.processes,
            partial(engine.nanoseconds, statement, effort, **how),
        )
