"""Under profilers, tracers and failing allocations, and what these can do."""

from __future__ import annotations

import cProfile
import itertools
import subprocess
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
from tests.checks import A
from tests.checks import OPERATIONS
from tests.harness import PATIENCE
from tests.harness import reported_waits


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


FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()

# What a profiler uses meanwhile is what is profiled.
used = LocalConnector()


@pytest.mark.timeout(60)
@pytest.mark.parametrize('tool', [profiled, traced_memory, cProfile.Profile])
@pytest.mark.usefixtures('tiny_switch_interval')
def test_under(tool: Any) -> None:
    # Without a GIL, cProfile cannot profile several threads at once.
    others = 0 if FREE_THREADED and tool is cProfile.Profile else 2
    start = threading.Barrier(1 + others)

    def work() -> None:
        start.wait(PATIENCE)
        for _ in range(50):
            keys = used.put_batch([b'value'] * 5)
            assert used.get_batch(keys) == [b'value'] * 5
            for key in keys:
                used.set(key, b'new')
                assert used.get(key) == b'new'
                used.evict(key)
                assert not used.exists(key)

    with tool():
        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(others)
        ]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert len(used) == 0


MEMORY_ERRORS = """
import _testcapi
import sys
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.checks import OPERATIONS

failures = 0
keys = [LocalKey(str(number)) for number in range(30)]
objs = [b'%d' % number for number in range(4)]
operations = OPERATIONS | {
    'put_batch': lambda connector: connector.put_batch(objs),
}
if not getattr(sys, '_is_gil_enabled', lambda: True)():
    # On 3.13t list.extend() corrupts memory when an allocation in it fails.
    del operations['get_batch']
for operation in operations.values():
    for size in range(12):
        contents = {key: b'0' for key in keys[:size]}
        for number in range(100):
            connector = LocalConnector(
                contents.copy(),
                include_data_in_config=True,
            )
            connector.new_key()  # There are some in store now.
            _testcapi.set_nomemory(number, number + 1)
            try:
                operation(connector)
            except MemoryError:
                failed = True
            else:
                failed = False
            finally:
                _testcapi.remove_mem_hooks()
            failures += failed
            found = connector.config()['store_dict']
            assert not failed or found == contents, (size, found)
            # Nobody is waited for.
            connector.set(keys[0], b'1')
            assert connector.get(keys[0]) == b'1'
            connector.evict(keys[0])
print(failures, 'failures')
assert failures > 100
"""


@pytest.mark.timeout(120)
def test_memory_errors_leave_the_lock_free_and_nothing_half_done() -> None:
    pytest.importorskip('_testcapi', reason='this Python has no _testcapi')
    ended = subprocess.run(
        [sys.executable, '-c', MEMORY_ERRORS],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout


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


@pytest.mark.timeout(60)
@pytest.mark.parametrize('name', ['get', 'exists', 'set', 'evict'])
def test_other_threads_wait_while_a_line_tracer_runs_inside(
    name: str,
) -> None:
    waited: set[bool] = set()

    def strike() -> None:
        left.clear()
        blocked.clear()
        done = threading.Thread(target=write, daemon=True)
        threads.append(done)
        done.start()
        assert met.wait(PATIENCE)
        waited.add(blocked.is_set())

    def write() -> None:
        connector.set(A, b'other')
        met.set()

    def report() -> None:
        if threading.current_thread() is threading.main_thread():
            # A reader that found the dict closed by the writer that met it.
            left.set()
        else:
            blocked.set()
            met.set()

    met, blocked, left = (threading.Event() for _ in range(3))
    threads: list[threading.Thread] = []
    for number in itertools.count(1):
        connector = LocalConnector({A: b'0'})
        met.clear()
        with reported_waits(report, left):
            struck = at_line(
                number,
                strike,
                lambda connector=connector: OPERATIONS[name](connector),  # type: ignore[misc]
            )
            left.set()
            for thread in threads:
                thread.join(PATIENCE)
                assert not thread.is_alive()
        if not struck:
            break
    assert waited == {True, False}


@pytest.mark.timeout(60)
@pytest.mark.parametrize('name', ['get', 'exists', 'set', 'evict'])
def test_a_line_tracer_that_raises_may_leave_the_lock_held(name: str) -> None:
    # What the documentation says of debuggers. Python calls them between an
    # instruction that acquires and the `try` after it.
    def strike() -> None:
        raise TracerError

    def give_up() -> None:
        raise TracerError

    held = []
    for number in itertools.count(1):
        connector = LocalConnector({A: b'0'})
        struck = at_line(
            number,
            strike,
            lambda connector=connector: OPERATIONS[name](connector),  # type: ignore[misc]
        )
        if not struck:
            break
        with reported_waits(give_up, threading.Event()):
            try:
                connector.set(LocalKey('b'), b'1')
            except TracerError:
                held.append(number)
    assert 0 < len(held) < number - 1
