"""Decides whether recorded operations of threads are linearizable.

A history is linearizable if each operation can be given a moment between its
start and its end so that the operations, done one after another in the order
of these moments, return what they returned. Batches are single operations on
several keys. The search is that of Wing and Gong (Testing and Verifying
Concurrent Objects, J. Parallel Distrib. Comput. 17, 1993), with Lowe's memory
of configurations that led nowhere (Testing for Linearizability, Concurr.
Comput. 29, 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from time import clock_gettime_ns
from time import CLOCK_MONOTONIC
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.operations import KEYS
from tests.support.operations import Model
from tests.support.operations import OPERATIONS


@dataclass(frozen=True)
class Call:
    """An operation that a thread has completed.

    Attributes:
        thread: Who called it.
        name: Name of the connector's method.
        arguments: What it was called with.
        result: What it returned; or the exception that it raised, which is
            never right.
        start: When it was called, on any clock that all threads share.
        end: When it had returned, on the same clock.
    """

    thread: int
    name: str
    arguments: tuple[Any, ...]
    result: Any
    start: float
    end: float

    def __str__(self) -> str:
        arguments = ', '.join(map(repr, self.arguments))
        return (
            f'{self.start:>6} to {self.end:>6}  thread {self.thread}: '
            f'{self.name}({arguments}) -> {self.result!r}'
        )


def record(
    connector: LocalConnector,
    thread: int,
    names: Sequence[str],
    make_keys: Callable[[], Sequence[LocalKey]] = lambda: KEYS,
) -> list[Call]:
    """Do operations, each with a value of its own, and record them.

    Args:
        connector: What to do them on.
        thread: Number of the thread.
        names: Names of the operations. Those on one key are on the first key
            and on the second one by turns.
        make_keys: Makes two keys, for each operation anew.
    """
    history = []
    for number, name in enumerate(names):
        value = b'%d.%d' % (thread, number)
        operation = OPERATIONS[name]
        arguments = operation.arguments(value, make_keys(), number % 2)
        start = clock_gettime_ns(CLOCK_MONOTONIC)
        try:
            result = getattr(connector, name)(*arguments)
        except (AssertionError, KeyError) as error:
            result = error
        end = clock_gettime_ns(CLOCK_MONOTONIC)
        history.append(Call(thread, name, arguments, result, start, end))
    return history


def apply(call: Call, model: Model) -> bool:
    """Do what a call did, to a model dict, and see if its result is right."""
    if isinstance(call.result, Exception):
        return False
    do = OPERATIONS[call.name].model
    return bool(call.result == do(model, call.result, *call.arguments))


def linearizable(
    history: Sequence[Call],
    contents: Mapping[LocalKey, bytes],
) -> bool:
    """Decide if there is an order in which the calls of a history make sense.

    Args:
        history: Completed calls, in any order.
        contents: What the dict held when the first of them began.
    """
    seen: set[tuple[frozenset[int], frozenset[tuple[LocalKey, bytes]]]] = set()

    def search(left: frozenset[int], model: Model) -> bool:
        """Try to do the calls that are left, in any order."""
        if (left, frozenset(model.items())) in seen:
            return False
        seen.add((left, frozenset(model.items())))
        # The next one is one that no other had ended before.
        earliest_end = min((history[i].end for i in left), default=0)
        for i in left:
            if history[i].start <= earliest_end:
                after = model.copy()
                if apply(history[i], after) and search(left - {i}, after):
                    return True
        return not left

    return search(frozenset(range(len(history))), dict(contents))


def assert_linearizable(
    history: Sequence[Call],
    before: Mapping[LocalKey, bytes],
    after: Mapping[LocalKey, bytes],
) -> None:
    """Fail, and show the history, unless it is linearizable.

    Args:
        history: Completed calls, in any order.
        before: What the dict held when the first of them began.
        after: What it held when all were over.
    """
    time = max(call.end for call in history) + 1
    result = {'include_data_in_config': True, 'store_dict': dict(after)}
    look = Call(-1, 'config', (), result, time, time)
    calls = sorted([*history, look], key=lambda call: call.start)
    if not linearizable(calls, before):
        lines = '\n'.join(map(str, calls))
        raise AssertionError(
            f'not linearizable, from {before}:\n{lines}',
        )
