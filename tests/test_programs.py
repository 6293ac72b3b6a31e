"""Drawn programs of a few threads are linearizable, however they run.

What frontrun explores runs under it: `tox -e interleavings`.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from proxystore_local import LocalConnector
from tests.harness import NoLock
from tests.linearizability import assert_linearizable
from tests.programs import CONTENTS
from tests.programs import Program
from tests.programs import programs
from tests.programs import run_on_threads
from tests.programs import Step

# How often each program runs.
RUNS = 3


def run(program: Program, lock: Any = None, runs: int = RUNS) -> None:
    """Run a program a few times."""
    for _ in range(runs):
        store = dict(CONTENTS)
        first = LocalConnector(store, include_data_in_config=True, lock=lock)
        second = LocalConnector(store, include_data_in_config=True)
        history = run_on_threads(program, [first, second])
        assert_linearizable(history, CONTENTS)


@given(programs(most_steps=12))
def test_programs_on_real_threads(program: Program) -> None:
    run(program)


@pytest.mark.usefixtures('tiny_switch_interval')
def test_programs_on_real_threads_fail_without_a_lock() -> None:
    batches = [[Step('put_batch')] * 4, [Step('get_batch')] * 4]
    with pytest.raises(AssertionError, match='not linearizable'):
        run(batches, NoLock(), runs=1000)
