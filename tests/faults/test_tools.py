"""Under profilers, tracers and failing allocations, and what these can do."""

from __future__ import annotations

import cProfile
import importlib
import itertools
import sys
import threading
import tracemalloc
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from proxystore_local import guarded
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.processes import FREE_THREADED
from tests.support.processes import run_apart
from tests.support.scenes import Scene
from tests.support.scenes import start
from tests.support.scenes import waits

# What a profiler uses meanwhile is what is profiled.
used = LocalConnector()

# The operations that have a critical section of their own, line by line.
every_section = pytest.mark.parametrize(
    'name', ['get', 'exists', 'set', 'evict']
)


@contextmanager
def profiled() -> Iterator[None]:
    """Run with a profiler in Python that itself uses a connector."""

    def profile(frame: FrameType, event: str, _: object) -> None:
        if frame.f_code.co_filename == guarded.__file__:
            used.evict(used.put(event.encode()))

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
@pytest.mark.usefixtures('tiny_switch_interval')
def test_under(tool: Any) -> None:
    # Without a GIL, cProfile cannot profile several threads at once.
    others = 0 if FREE_THREADED and tool is cProfile.Profile else 2
    barrier = threading.Barrier(1 + others)

    def work() -> None:
        barrier.wait(PATIENCE)
        for _ in range(50):
            keys = used.put_batch([b'value'] * 5)
            assert used.get_batch(keys) == [b'value'] * 5
            for key in keys:
                used.set(key, b'new')
                assert used.get(key) == b'new'
                used.evict(key)
                assert not used.exists(key)

    with tool():
        threads = [start(work) for _ in range(others)]
        work()
        for thread in threads:
            thread.result(PATIENCE)
    assert len(used) == 0


def fail_allocations() -> None:
    """Let each allocation of each operation fail, one after the other."""
    _testcapi = importlib.import_module('_testcapi')

    keys = [LocalKey(str(number)) for number in range(30)]
    names = {*OPERATIONS}
    if FREE_THREADED:
        # On 3.13t list.extend() corrupts memory when an allocation fails.
        names -= {'get_batch'}
    failures = 0
    for name, size, number in itertools.product(names, range(12), range(100)):
        contents = dict.fromkeys(keys[:size], b'0')
        connector = LocalConnector(
            contents.copy(),
            include_data_in_config=True,
        )
        connector.new_key()  # There are some in store now.
        method = getattr(connector, name)
        arguments = OPERATIONS[name].arguments(b'1', keys[:4])
        _testcapi.set_nomemory(number, number + 1)
        try:
            method(*arguments)
        except MemoryError:
            failed = True
        else:
            failed = False
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


def at_line(
    number: int,
    strike: Callable[[], object],
    work: Callable[[], object],
) -> bool:
    """Do something, and strike before a line of guarded.py is run.

    Args:
        number: Number of the line, counted as they run.
        strike: What a line tracer does there.
        work: What to do.

    Returns:
        If as many lines were run.
    """
    lines = itertools.count(1)
    struck = False

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal struck
        if frame.f_code.co_filename != guarded.__file__:
            return None
        if event == 'line' and next(lines) == number:
            struck = True
            sys.settrace(None)
            strike()
        return trace

    sys.settrace(trace)
    try:
        work()
    except TracerError:
        pass
    finally:
        sys.settrace(None)
    return struck


@every_section
def test_other_threads_wait_while_a_line_tracer_runs_inside(
    name: str,
) -> None:
    met: set[str] = set()
    struck = True
    for number in itertools.count(1):
        if not struck:
            break
        with Scene() as scene:

            def strike(scene: Scene = scene) -> None:
                write = lambda: scene.connector.set(A, b'other')  # noqa: E731
                met.add(scene.attempt(write)[0])
                # A reader may find the dict closed by that writer.
                scene.on_wait = scene.left.set

            struck = at_line(
                number,
                strike,
                lambda scene=scene: OPERATIONS[name](scene.connector),  # type: ignore[misc]
            )
    assert met == {'blocked', 'done'}


@every_section
def test_a_line_tracer_that_raises_may_leave_the_lock_held(name: str) -> None:
    # What the documentation says of debuggers. Python calls them between an
    # instruction that acquires and the `try` after it.
    def give_up() -> None:
        raise TracerError

    held = []
    for number in itertools.count(1):
        connector = LocalConnector({A: b'0'})
        struck = at_line(
            number,
            give_up,
            lambda connector=connector: OPERATIONS[name](connector),  # type: ignore[misc]
        )
        if not struck:
            break
        with waits(give_up):
            try:
                connector.set(A, b'1')
            except TracerError:
                held.append(number)
    assert 0 < len(held) < number - 1
