"""Under profilers, tracers and failing allocations, and what these can do."""

from __future__ import annotations

import cProfile
import gc
import importlib
import itertools
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.operations import READS
from tests.support.operations import WRITES
from tests.support.points import FILES
from tests.support.processes import FREE_THREADED
from tests.support.processes import run_apart
from tests.support.scenes import assert_free
from tests.support.scenes import Scene

# What a profiler uses meanwhile is what is profiled.
used = LocalConnector(include_data_in_config=True)


def profile(frame: FrameType, event: str, _: object) -> None:
    """Use a connector, as a profiler in Python that itself does that."""
    if frame.f_code.co_filename.startswith(FILES):
        used.evict(used.put(event.encode()))


@contextmanager
def profiled() -> Iterator[None]:
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@contextmanager
def traced_memory() -> Iterator[None]:
    tracemalloc.start(5)
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('tool', [profiled, traced_memory, cProfile.Profile])
def test_profilers_leave_the_lock_free(tool: Any) -> None:
    # Without a GIL, it cannot profile several threads.
    alone = FREE_THREADED and tool is cProfile.Profile
    with tool():
        for _ in range(50):
            if alone:
                for operation in OPERATIONS.values():
                    operation(used)
            else:
                assert_free(used)


def fail_allocations() -> None:
    """Let each allocation of each operation fail, one after the other."""
    _testcapi = importlib.import_module('_testcapi')

    keys = [LocalKey(str(number)) for number in range(30)]
    failures = 0
    for name, size, number in itertools.product(
        OPERATIONS, range(12), range(100)
    ):
        contents = dict.fromkeys(keys[:size], b'0')
        connector = LocalConnector(
            contents.copy(),
            include_data_in_config=True,
        )
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
    print(failures, 'failures')
    assert failures > 100


def test_memory_errors_leave_the_lock_free_and_nothing_half_done() -> None:
    pytest.importorskip('_testcapi', reason='this Python has no _testcapi')
    code, printed = run_apart(
        '-c',
        'import tests.faults.test_tools as it; it.fail_allocations()',
    )
    assert code == 0, printed


class TracerError(Exception):
    """What a debugger raises when its user quits, say."""


def give_up() -> None:
    raise TracerError


def quit_at_line(name: str, number: int) -> list[str]:
    """Trace an operation line by line, and quit before one of them.

    Args:
        name: Name of the operation.
        number: Number of the line of ours, counted as they run.

    Returns:
        What becomes of another thread that writes: while the tracer runs, and
        when it has quit. Nothing, if not as many lines run.
    """
    lines = itertools.count(1)
    became: list[str] = []
    scene = Scene()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(FILES):
            return None
        if event == 'line' and next(lines) == number:
            sys.settrace(None)
            write = lambda: scene.connector.set(A, b'other')  # noqa: E731
            became.append(scene.attempt(write)[0])
            give_up()
        return trace

    with scene:
        gc.disable()  # What it calls would be traced as well.
        sys.settrace(trace)
        try:
            OPERATIONS[name](scene.connector)
        except TracerError:
            # The writer goes on now, and is not to wait again.
            scene.on_wait = give_up
            scene.left.set()
            waited = scene.threads.pop().exception(PATIENCE)
            became.append('blocked' if waited else 'done')
        finally:
            sys.settrace(None)
            gc.enable()
    return became


# What the documentation says of debuggers.
FREE = {('done', 'done')}
MAY_HOLD = FREE | {('blocked', 'done'), ('blocked', 'blocked')}


@pytest.mark.parametrize(
    ('name', 'outcomes'),
    [
        *[(name, FREE) for name in READS],
        *[(name, MAY_HOLD) for name in WRITES],
    ],
)
def test_a_line_tracer_may_leave_the_lock_held_but_in_no_read(
    name: str, outcomes: set[tuple[str, str]]
) -> None:
    # Python calls it between the instruction that acquires and the `try`.
    quits = map(quit_at_line, itertools.repeat(name), itertools.count(1))
    assert {*map(tuple, itertools.takewhile(bool, quits))} == outcomes
