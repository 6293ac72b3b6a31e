"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from operator import call
from unittest import mock

import pytest

from proxystore_local import LocalConnector
from proxystore_local import seqlocked
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.points import at_point
from tests.support.processes import fork_inside
from tests.support.processes import needs_fork
from tests.support.processes import run_apart
from tests.support.scenes import assert_free
from tests.support.scenes import once
from tests.support.scenes import Scene
from tests.support.scenes import STOPPABLE

pytestmark = [
    needs_fork,
    # What the warning is about is what is tested here.
    pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning'),
]


@pytest.mark.parametrize('operation', STOPPABLE)
def test_a_child_does_not_wait_for_threads_that_it_does_not_have(
    operation: str,
) -> None:
    with Scene() as scene:
        scene.stop(operation)
        check = partial(assert_free, scene.connector)
        assert fork_inside(call, check) == 0
    check()


@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_fork_while_an_operation_waits(operation: str) -> None:
    # As by a signal handler, or by a finalizer.
    with Scene() as scene:
        scene.stop('set')

        def run(fork: Callable[[], object]) -> None:
            scene.on_wait = once(fork, scene.leave)
            OPERATIONS[operation](scene.connector)

        assert fork_inside(run, partial(assert_free, scene.connector)) == 0
    assert_free(scene.connector)


def test_threads_of_a_child_replace_a_lock_by_the_same() -> None:
    with Scene() as scene:
        scene.stop('set')
        # As one thread is about to replace it, another does so and gets in.
        get_in = once(partial(scene.stop, 'set'))

        def getpid_in_child() -> int:
            get_in()
            return -1

        with mock.patch.object(seqlocked, 'getpid', getpid_in_child):
            work = partial(scene.connector.set, A, b'new')
            assert scene.attempt(work)[0] == 'blocked'


def fork_at_point(point: int, operation: str) -> bool:
    """Fork at a point of an operation, if there is one; see at_point()."""
    connector = LocalConnector(include_data_in_config=True)
    work = partial(OPERATIONS[operation], connector)
    found = False

    def run(fork: Callable[[], object]) -> None:
        nonlocal found
        found = at_point(point, fork, work)
        if not found:
            fork()

    assert fork_inside(run, partial(assert_free, connector)) == 0
    assert_free(connector)
    return found


@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_fork_at_every_point(operation: str) -> None:
    points = itertools.count(1)
    while fork_at_point(next(points), operation):
        pass


def test_a_child_mints_other_keys_than_its_parent() -> None:
    # Even in a fork handler that was registered before any of the package.
    program = """if True:
        import os
        os.register_at_fork(after_in_child=lambda: theirs.append(mint()))
        from proxystore_local import LocalConnector
        mint = LocalConnector().new_key
        mint()
        theirs = []
        out, into = os.pipe()
        if os.fork() == 0:
            theirs.append(mint())
            os.write(into, ' '.join(key.id for key in theirs).encode())
            os._exit(0)
        os.wait()
        ours = {mint().id for _ in range(300)}
        assert ours.isdisjoint(os.read(out, 10_000).decode().split())
    """
    code, printed = run_apart('-c', program)
    assert code == 0, printed


def test_a_fork_handler_that_was_registered_first_waits_for_nobody() -> None:
    # As in one of threading's own, where a finalizer may run.
    program = """if True:
        import os
        import signal
        os.register_at_fork(after_in_child=lambda: use_in_child())
        from operator import call
        from tests.support.operations import OPERATIONS
        from tests.support.processes import fork_inside
        from tests.support.scenes import Scene

        def use_in_child():
            signal.alarm(20)
            for operation in OPERATIONS.values():
                operation(scene.connector)

        with Scene() as scene:
            scene.on_wait = bool
            scene.stop('set')
            assert fork_inside(call, bool) == 0
    """
    code, printed = run_apart('-W', 'ignore', '-c', program)
    assert (code, printed) == (0, '')
