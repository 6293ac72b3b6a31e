"""Programs of a few threads on one connector, explored by frontrun.

frontrun runs a program under every schedule that could make a difference
(dynamic partial-order reduction). It sees each use of an attribute, of the
connector and its lock as well, but not what happens inside C. So the dict is
replaced by one in Python, of which a batch is several steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import MutableMapping
from operator import methodcaller
from typing import Any
from unittest import mock

import frontrun

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import seqlocked
from proxystore_local.guarded import GuardedDict
from proxystore_local.seqlocked import SeqlockedDict
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.linearizability import record
from tests.support.locks import PATIENCE
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import Model
from tests.support.scenes import minted


class SteppedDict(MutableMapping[LocalKey, bytes]):
    """A dict of KEYS, with each value in an attribute: a step to frontrun."""

    def __init__(self, contents: Model) -> None:
        for key in KEYS:
            setattr(self, key.id, contents.get(key))

    def __getitem__(self, key: LocalKey) -> bytes:
        value: bytes | None = getattr(self, key.id)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        setattr(self, key.id, value)

    def __delitem__(self, key: LocalKey) -> None:
        if key not in self:
            raise KeyError(key)
        setattr(self, key.id, None)

    def __iter__(self) -> Iterator[LocalKey]:
        return (key for key in KEYS if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Execution:
    """One execution of a program.

    Args:
        program: As for explore(). The dict is empty at first or, if there is
            an `evict`, it holds CONTENTS.
        guard: Makes what guards the dict.
    """

    def __init__(
        self,
        program: str,
        guard: Callable[[Any, str], GuardedDict],
    ) -> None:
        self.program = program.split('|')
        self.contents = CONTENTS if 'evict' in program else {}
        self.store = SteppedDict(self.contents)
        self.histories: list[list[Call]] = [[] for _ in self.program]
        self.connector = LocalConnector()
        # This is the one place that uses private names of the connector.
        vars(self.connector).update(
            _data=guard(self.store, 'stepped'),
            _store=self.store,
            _get=self.store.get,
        )

    def work(self, thread: int) -> None:
        names = self.program[thread].split()
        history = record(self.connector, thread, names)
        self.histories[thread].extend(history)

    def check(self) -> bool:
        history = [call for each in self.histories for call in each]
        assert_linearizable(history, self.contents, dict(self.store))
        return True


def wait(pause: float) -> None:
    """Wait in a way that frontrun sees.

    It takes no time, but frontrun lets the thread go on only where all others
    have ended or wait for longer.
    """
    # The longer a thread has waited, the shorter is its next pause.
    assert pause > 0.0001, 'waits for ever'
    time.sleep(pause)


def explore(
    program: str,
    bound: int,
    guard: Callable[[Any, str], GuardedDict] = SeqlockedDict,
) -> None:
    """Run a program under every schedule.

    Args:
        program: Operations of each thread, such as `'put_batch | get get'`.
        bound: How often a schedule may take the turn from a thread that could
            go on.
        guard: Makes what guards the dict.

    Raises:
        AssertionError: If an operation waits for ever, or if what the threads
            did is not linearizable.
    """
    threads = range(len(program.split('|')))
    interval = sys.getswitchinterval()
    # The interpreter must not take the turn: another thread would go on before
    # one has done what frontrun saw it begin.
    sys.setswitchinterval(PATIENCE)
    try:
        with minted(KEYS), mock.patch.object(seqlocked, 'sleep', wait):
            result = frontrun.explore(
                lambda: Execution(program, guard),
                [methodcaller('work', thread) for thread in threads],
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
