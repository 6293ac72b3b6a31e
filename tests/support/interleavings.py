"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction). It sees each use of an attribute, of the
connector and its lock as well, but not what happens inside C. So the dict is
replaced by one in Python, of which a batch is several steps.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from operator import methodcaller
from time import clock_gettime_ns
from time import CLOCK_MONOTONIC
from typing import Any

import frontrun

from proxystore_local import LocalConnector
from proxystore_local.guarded import GuardedDict
from proxystore_local.seqlocked import Seqlock
from proxystore_local.seqlocked import SeqlockedDict
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.locks import PATIENCE
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import Model
from tests.support.operations import Program
from tests.support.scenes import minted

# How often a thread may wait while others can go on, and how often at all.
FREE_WAITS = 1
MOST_WAITS = 50


class SteppedDict:
    """A dict of KEYS, with each value in an attribute: a step to frontrun."""

    def __init__(self, contents: Model) -> None:
        self.update(dict.fromkeys(KEYS) | contents)

    def get(self, key: Any) -> Any:
        return getattr(self, key.id)

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self.get(key) is not None

    # What {}.__ior__(self), which takes a snapshot, reads.
    def __iter__(self) -> Iterator[tuple[Any, bytes]]:
        for key in KEYS:
            value = self.get(key)
            if value is not None:
                yield key, value

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __setitem__(self, key: Any, value: bytes | None) -> None:
        setattr(self, key.id, value)

    def __delitem__(self, key: Any) -> None:
        self[key] = None

    def pop(self, key: Any, default: None) -> None:
        self[key] = default

    def update(self, other: Any) -> None:
        for key, value in other.items():
            self[key] = value


class SteppedData(SeqlockedDict):
    """Waits in a way that frontrun sees, and takes faulty locks as well."""

    __slots__ = ()

    make_lock: Callable[[], Seqlock] = Seqlock

    def renew(self) -> None:
        self.seqlock = self.make_lock()

    def _wait(self, _: object) -> None:
        me: Any = threading.current_thread()
        me.waits += 1
        assert me.waits <= MOST_WAITS, 'waits for ever'
        if me.waits > FREE_WAITS:
            # frontrun takes no time for it, but lets the thread wake up only
            # where all others have ended or sleep longer. The next thread
            # does: this one must not depend on it to come back.
            time.sleep((2 * MOST_WAITS) ** me.number)


class Execution:
    """One run of a program, and the history of it.

    Args:
        program: What each thread does, on a dict that is empty or, if it
            evicts, holds CONTENTS.
        make: Makes what guards the dict.
    """

    def __init__(
        self,
        program: Program,
        make: Callable[[Any, str], GuardedDict] = SteppedData,
    ) -> None:
        names = {step.name for steps in program for step in steps}
        self.contents = CONTENTS if 'evict' in names else {}
        self.store: Any = SteppedDict(self.contents)
        self.connector: Any = LocalConnector(include_data_in_config=True)
        # This is the one place that uses private names of the connector.
        vars(self.connector).update(
            _data=make(self.store, 'stepped'),
            _store=self.store,
            _get=self.store.get,
        )
        self.program = program
        self.histories: list[list[Call]] = [[] for _ in program]
        self.threads: list[list[Any]] = [[] for _ in program]

    def work(self, thread: int) -> None:
        # An object of its own, since frontrun takes a threading.local for one
        # that all threads share.
        me: Any = threading.current_thread()
        me.number, me.waits = thread, 0
        self.threads[thread].append(me)
        history = self.histories[thread]
        for number, step in enumerate(self.program[thread]):
            arguments = step.arguments(b'%d.%d' % (thread, number))
            start = clock_gettime_ns(CLOCK_MONOTONIC)
            try:
                result = getattr(self.connector, step.name)(*arguments)
            except (AssertionError, KeyError) as error:
                result = error
            end = clock_gettime_ns(CLOCK_MONOTONIC)
            history.append(
                Call(thread, step.name, arguments, result, start, end),
            )

    def check(self) -> bool:
        history = [*itertools.chain(*self.histories)]
        assert_linearizable(history, self.contents, dict(iter(self.store)))
        return True


def explore(
    make: Callable[[], Execution],
    threads: int,
    bound: int | None = None,
) -> list[Execution]:
    """Let threads work under every schedule.

    Args:
        make: Makes what they work on.
        threads: How many there are.
        bound: How often a schedule may take the turn from a thread that could
            go on; `None` is any number of times.

    Returns:
        What was made, for each schedule.

    Raises:
        AssertionError: If what one leaves does not pass its check.
    """
    runs: list[Execution] = []

    def setup() -> Execution:
        runs.append(make())
        return runs[-1]

    interval = sys.getswitchinterval()
    # The interpreter must not take the turn: another thread would go on before
    # one has done what frontrun saw it begin.
    sys.setswitchinterval(PATIENCE)
    try:
        with minted(KEYS):
            result = frontrun.explore(
                setup,
                [methodcaller('work', thread) for thread in range(threads)],
                methodcaller('check'),
                preemption_bound=bound,
                clock='virtual',
                timeout_per_run=PATIENCE,
                detect_io=False,
                reproduce_on_failure=0,
                trace_packages=['*.connector', '*.seqlocked'],
            )
    finally:
        sys.setswitchinterval(interval)
    print(f'{result.num_explored} schedules')
    result.assert_holds()
    return runs
