"""Runs programs on real threads, and records what they did when."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from time import perf_counter_ns
from time import sleep
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.linearizability import Call
from tests.support.locks import PATIENCE
from tests.support.operations import KEYS
from tests.support.operations import Program
from tests.support.operations import Step
from tests.support.scenes import hooked
from tests.support.scenes import minted
from tests.support.scenes import start


class YieldingKeys(Sequence[LocalKey]):
    """The same keys; where one is compared, a thread offers its turn.

    They are made anew at each use, since a key in the dict is not compared
    with itself.
    """

    def __len__(self) -> int:
        return len(KEYS)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [*self][index]
        return hooked(KEYS[index], partial(sleep, 0))


YIELDING = YieldingKeys()


def look(contents: Mapping[LocalKey, bytes], time: int) -> Call:
    """Make the call that finds, when all is over, what the dict holds."""
    result = {'include_data_in_config': True, 'store_dict': dict(contents)}
    return Call(-1, 'config', (), result, time, time)


def run_on_threads(
    program: Program,
    connectors: Sequence[LocalConnector],
) -> list[Call]:
    """Run a program on real threads, that all start at once.

    Args:
        program: What each thread does.
        connectors: Two connectors on one dict, which include the data.

    Returns:
        All calls, and a last one that looks at the dict.
    """
    barrier = threading.Barrier(len(program))

    def do(thread: int, number: int, step: Step) -> Call:
        value = b'%d.%d' % (thread, number)
        arguments = step.arguments(value, YIELDING)
        method = getattr(connectors[step.second], step.name)
        start = perf_counter_ns()
        try:
            result = method(*arguments)
        except (AssertionError, KeyError) as error:
            result = error
        end = perf_counter_ns()
        return Call(thread, step.name, arguments, result, start, end)

    def work(thread: int) -> list[Call]:
        barrier.wait(PATIENCE)
        return [do(thread, *it) for it in enumerate(program[thread])]

    with minted(YIELDING):
        threads = [start(partial(work, i)) for i in range(len(program))]
        histories = [thread.result(PATIENCE) for thread in threads]
    contents = connectors[0].config()['store_dict']
    return [*itertools.chain(*histories), look(contents, perf_counter_ns())]
