"""Price of an object of a batch, by its size (median of the rounds)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks import engine


def cases(effort: engine.Effort) -> Iterator[engine.Case]:
    """Make a case for each operation and size."""
    for name, statement in (
        ('get_batch', 'connector.get_batch(keys)'),
        ('put_batch', 'connector.put_batch(values)'),
    ):
        for size in (1, 10, 100, 1_000, 10_000, 100_000):
            if size > 20 * effort.calls:
                break
            some = effort._replace(
                calls=max(1, effort.calls // size),
                best_of=effort.best_of if size <= effort.calls else 1,
            )
            run = partial(engine.nanoseconds, statement, some, batch=size)
            column = engine.Column(f'{size:,}', 'ns/obj')
            yield engine.Case(name, [column], effort.rounds, run)
