"""Programs of a few threads on one connector, and the history of a run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns
from time import sleep
from typing import Any
from unittest import mock

import hypothesis.strategies as st

from proxystore_local import connector
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import SteppingDict
from tests.linearizability import Call

# The dict of a program has these two keys at the start.
KEYS = [LocalKey('a'), LocalKey('b')]
CONTENTS = {KEYS[0]: b'a0', KEYS[1]: b'b0'}

# Seconds that a run may take. It takes milliseconds.
PATIENCE = 30

READS = ['get', 'exists', 'get_batch', 'config']
WRITES = ['put', 'put_batch', 'set', 'evict']


@dataclass(frozen=True)
class Step:
    """An operation in a program.

    Attributes:
        name: Name of the connector's method; or `connect`, for a new
            connector on the same dict, which the thread goes on with.
        key: Index in KEYS, of operations that are on one key.
        second: Done by another connector on the same dict.
        inside: What a finalizer does in the middle of this operation.
    """

    name: str
    key: int = 0
    second: bool = False
    inside: Step | None = None

    def arguments(self, value: bytes) -> tuple[Any, ...]:
        """What to call the method with, so that it writes a value."""
        match self.name:
            case 'get' | 'exists' | 'evict':
                return (KEYS[self.key],)
            case 'set':
                return (KEYS[self.key], value)
            case 'put':
                return (value,)
            case 'put_batch':
                return ([value] * len(KEYS),)
            case 'get_batch':
                return (KEYS,)
            case _:
                return ()

    def __str__(self) -> str:
        text = self.name
        if self.name in ('get', 'exists', 'set', 'evict'):
            text += f'({KEYS[self.key].id})'
        if self.second:
            text = f'second.{text}'
        return text if self.inside is None else f'{text}[{self.inside}]'


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


def yielding_dict() -> SteppingDict:
    """Make a dict of CONTENTS, where a thread offers its turn at each step."""
    store = SteppingDict()
    store.update(CONTENTS)
    store.hook = partial(sleep, 0)
    return store


@contextmanager
def known_keys() -> Iterator[None]:
    """Let a put store at the first of KEYS, and a put_batch at them all.

    Threads that know where another one puts see more of it than those who
    wait to be told.
    """
    with mock.patch.multiple(
        connector,
        mint=lambda: KEYS[0],
        mint_batch=lambda count: list(itertools.islice(KEYS, count)),
    ):
        yield


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
    arguments = step.arguments(value)
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
    with known_keys():
        for worker in threads:
            worker.start()
        for worker in threads:
            worker.join(PATIENCE)
            assert not worker.is_alive(), f'{show(program)} hangs'
    contents = connectors[0].config()['store_dict']
    return [*itertools.chain(*histories), look(contents, perf_counter_ns())]
