"""Under tracers and failing allocations, and what these can do."""

from __future__ import annotations

import gc
import importlib
import itertools
import sys
from functools import partial
from types import FrameType
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.operations import WRITES
from tests.support.points import FILES
from tests.support.processes import run_apart
from tests.support.scenes import Scene
from tests.support.scenes import start


def fail_allocations() -> None:
    """Let each allocation of each operation fail, one after the other."""
    _testcapi = importlib.import_module('_testcapi')

    keys = [LocalKey(str(number)) for number in range(12)]
    failures = 0
    for name, size, number in itertools.product(
        OPERATIONS, range(len(keys)), range(100)
    ):
        contents = dict.fromkeys(keys[:size], b'0')
        connector = LocalConnector({**contents}, include_data_in_config=True)
        method = getattr(connector, name)
        arguments = OPERATIONS[name].arguments(b'1', keys[:4])
        failed = False
        _testcapi.set_nomemory(number, number + 1)
        try:
            method(*arguments)
        except MemoryError:
            failed = True
        finally:
            _testcapi.remove_mem_hooks()
        failures += failed
        found = connector.config()['store_dict']
        assert not failed or found == contents, (name, size, found)
        # Nobody is waited for.
        connector.set(A, b'1')
        assert connector.get(A) == b'1'
        connector.evict(A)
    assert failures > 100


def test_memory_errors_leave_the_lock_free_and_nothing_half_done() -> None:
    pytest.importorskip('_testcapi', reason='this Python has no _testcapi')
    code, printed = run_apart(
        '-c',
        'import tests.faults.test_tools as it; it.fail_allocations()',
    )
    assert code == 0, printed


class QuitError(Exception):
    """What a debugger raises when its user quits."""


def give_up() -> None:
    raise QuitError


def quit_at_line(name: str, number: int) -> str:
    """Trace an operation line by line, and quit before one of them.

    Args:
        name: Name of the operation.
        number: Number of the line of ours, counted as they run.

    Returns:
        `free` or `held`, as another thread finds the lock then; or nothing,
        if not as many lines run.
    """
    lines = itertools.count(1)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(FILES):
            return None
        if event == 'line' and next(lines) == number:
            sys.settrace(None)
            give_up()
        return trace

    with Scene() as scene:
        gc.disable()  # What it calls would be traced as well.
        sys.settrace(trace)
        try:
            OPERATIONS[name](scene.connector)
        except QuitError:
            scene.on_wait = give_up
            write = start(partial(scene.connector.set, A, b'other'))
            return 'held' if write.exception(PATIENCE) else 'free'
        finally:
            sys.settrace(None)
            gc.enable()
    return ''


@pytest.mark.parametrize('name', OPERATIONS)
def test_a_line_tracer_may_leave_the_lock_held_but_in_no_read(
    name: str,
) -> None:
    # Python calls it between the instruction that acquires and the `try`.
    quits = map(quit_at_line, itertools.repeat(name), itertools.count(1))
    found = {*itertools.takewhile(bool, quits)}
    assert found == ({'free', 'held'} if name in WRITES else {'free'})
