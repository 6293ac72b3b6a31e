"""Price of a call: one thread, nobody else (median of the processes)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import engine


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each operation."""
    size = engine.BATCH
    calls = effort.calls
    for name, statement, number, batch in (
        ('get', 'connector.get(key)', calls, 0),
        ('get missing', 'connector.get(missing)', calls, 0),
        ('exists', 'connector.exists(key)', calls, 0),
        ('len', 'len(connector)', calls, 0),
        ('set', engine.SET, calls, 0),
        ('put', 'connector.put(value)', calls, 0),
        ('evict', 'for k in keys: connector.evict(k)', 1, size),
        ('new_key', 'connector.new_key()', calls, 0),
        ('get_batch/obj', 'connector.get_batch(keys)', calls // size, size),
        (
            'get_batch/obj, last missing',
            'connector.get_batch(last_missing)',
            calls // size,
            size,
        ),
        ('put_batch/obj', 'connector.put_batch(values)', calls // size, size),
    ):
        some = effort._replace(calls=number)
        run = partial(engine.nanoseconds, statement, some, batch=batch)
        column = engine.Column(name, 'ns')
        yield engine.Case('one thread', [column], effort.processes, run)
