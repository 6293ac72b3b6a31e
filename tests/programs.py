"""Programs of a few threads on one connector, and the history of a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from time import sleep
from typing import Any

import hypothesis.strategies as st

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import hooked
from tests.harness import minted
from tests.linearizability import Call

# The dict of a program has these two keys at the start.
KEYS = [LocalKey('a'), LocalKey('b')]
CONTENTS = {KEYS[0]: b'a0', KEYS[1]: b'b0'}


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

# Seconds that a run may take. It takes milliseconds.
PATIENCE = 30

READS = ['get', 'exists', 'get_batch', 'config']
WRITES = ['put', 'put_batch', 'set', 'evict']


@dataclass(frozen=True)
class Step:
    """An operation in a program.

    Attributes:
        name: Name of the connector's method.
        key: Index in KEYS, of operations that are on one key.
        second: Done by another connector on the same dict.
    """

    name: str
    key: int = 0
    second: bool = False

    def arguments(
        self,
        value: bytes,
        keys: Sequence[LocalKey] = KEYS,
    ) -> tuple[Any, ...]:
        """What to call the method with, so that it writes a value.

        Args:
            value: The value.
            keys: Keys that equal KEYS.
        """
        match self.name:
            case 'get' | 'exists' | 'evict':
                return (keys[self.key],)
            case 'set':
                return (keys[self.key], value)
            case 'put':
                return (value,)
            case 'put_batch':
                return ([value] * len(keys),)
            case 'get_batch':
                return (keys,)
            case _:
                return ()

    def __str__(self) -> str:
        text = self.name
        if self.name in ('get', 'exists', 'set', 'evict'):
            text += f'({KEYS[self.key].id})'
        return f'second.{text}' if self.second else text


# A program: what each of its threads does, step by step.
Program = Sequence[Sequence[Step]]


def show(program: Program) -> str:
    """Write a program in a line, to be told from others."""
    return ' | '.join('; '.join(map(str, steps)) for steps in program)


def programs(most_steps: int) -> st.SearchStrategy[Program]:
    """Draw programs of two or three threads, of up to four steps each.

    Args:
        most_steps: Number of steps that a program has at most, in all.

    Returns:
        Strategy that shrinks to few steps on one key.
    """
    steps = st.builds(
        Step,
        name=st.sampled_from([*READS, *WRITES]),
        key=st.sampled_from(range(len(KEYS))),
        second=st.booleans(),
    )
    threads = st.lists(steps, min_size=1, max_size=4)
    return st.lists(threads, min_size=2, max_size=3).filter(
        lambda program: sum(map(len, program)) <= most_steps,
    )


def do(
    thread: int,
    target: LocalConnector,
    step: Step,
    value: bytes,
    clock: Callable[[], int],
) -> Call:
    """Do a step of a program, and record it.

    Args:
        thread: Who does it.
        target: What to do it with.
        step: What to do.
        value: What to store, if it stores.
        clock: Tells the time.

    Returns:
        The call of the connector.
    """
    arguments = step.arguments(value, YIELDING)
    method = getattr(target, step.name)
    start = clock()
    try:
        result = method(*arguments)
    except (AssertionError, KeyError) as error:
        result = error
    end = clock()
    return Call(thread, step.name, arguments, result, start, end)


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
        connectors: Two connectors on one dict, which holds CONTENTS.

    Returns:
        All calls, and a last one that looks at the dict.
    """
    barrier = threading.Barrier(len(program))
    histories: list[list[Call]] = [[] for _ in program]

    def work(thread: int) -> None:
        barrier.wait(PATIENCE)
        for number, step in enumerate(program[thread]):
            value = b'%d.%d' % (thread, number)
            target = connectors[step.second]
            histories[thread].append(
                do(thread, target, step, value, perf_counter_ns),
            )

    threads = [
        threading.Thread(target=work, args=(thread,), daemon=True)
        for thread in range(len(program))
    ]
    with minted(YIELDING):
        for worker in threads:
            worker.start()
        for worker in threads:
            worker.join(PATIENCE)
            assert not worker.is_alive(), f'{show(program)} hangs'
    contents = connectors[0].config()['store_dict']
    return [*itertools.chain(*histories), look(contents, perf_counter_ns())]
