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

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxystore_local import LocalKey
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
        arguments = ', '.join(map(_show, self.arguments))
        return (
            f'{self.start:>6} to {self.end:>6}  thread {self.thread}: '
            f'{self.name}({arguments}) -> {_show(self.result)}'
        )


def apply(call: Call, model: Model) -> bool:
    """Do what a call did, to a model dict, and see if its result is right."""
    if isinstance(call.result, Exception):
        return False
    operation = OPERATIONS[call.name]
    expected = operation.model(model, call.result, *call.arguments)
    return bool(call.result == expected)


def linearize(
    history: Sequence[Call],
    contents: Mapping[LocalKey, bytes],
) -> list[Call] | None:
    """Find an order in which the calls of a history make sense.

    Args:
        history: Completed calls, in any order.
        contents: What the dict held when the first of them began.

    Returns:
        The calls in such an order, or `None` if there is none.
    """
    calls = sorted(history, key=lambda call: call.start)
    everything = (1 << len(calls)) - 1
    seen: set[tuple[int, frozenset[tuple[LocalKey, bytes]]]] = set()
    # Each step of the search: the calls that are done, as bits; what they
    # leave in the dict; and the calls that can come next.
    done, model = 0, dict(contents)
    order: list[Call] = []
    steps = [(done, model, _next(calls, done))]
    while steps:
        done, model, candidates = steps[-1]
        if done == everything:
            return order
        for index in candidates:
            after = model.copy()
            if not apply(calls[index], after):
                continue
            reached = (done | 1 << index, frozenset(after.items()))
            if reached not in seen:
                seen.add(reached)
                order.append(calls[index])
                candidates = _next(calls, reached[0])
                steps.append((reached[0], after, candidates))
                break
        else:
            steps.pop()
            if order:
                order.pop()
    return None


def _next(calls: Sequence[Call], done: int) -> Iterable[int]:
    """Find the calls that no other one, not done yet, ended before."""
    left = [i for i in range(len(calls)) if not done >> i & 1]
    earliest_end = min((calls[i].end for i in left), default=0)
    return iter([i for i in left if calls[i].start <= earliest_end])


def describe(history: Iterable[Call]) -> str:
    """Show a history, a line for each call, as they started."""
    return '\n'.join(
        map(str, sorted(history, key=lambda call: call.start)),
    )


def assert_linearizable(
    history: Sequence[Call],
    contents: Mapping[LocalKey, bytes],
) -> None:
    """Fail, and show the history, unless it is linearizable."""
    if linearize(history, contents) is None:
        raise AssertionError(
            f'not linearizable, from {_show(dict(contents))}:\n'
            f'{describe(history)}',
        )


def _show(thing: Any) -> str:
    """Write a value in short: keys as their ids."""
    match thing:
        case LocalKey():
            return thing.id
        case dict():
            items = [f'{_show(k)}: {_show(v)}' for k, v in thing.items()]
            return f'{{{", ".join(items)}}}'
        case list() | tuple():
            return f'[{", ".join(map(_show, thing))}]'
        case _:
            return repr(thing)
