"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import itertools
import os
import runpy
from collections.abc import Callable
from functools import partial
from operator import call
from pathlib import Path
from unittest import mock

import pytest

import proxystore_local
from proxystore_local import LocalConnector
from tests.support.operations import OPERATIONS
from tests.support.points import at_point
from tests.support.processes import fork_inside
from tests.support.processes import needs_fork
from tests.support.processes import run_apart
from tests.support.scenes import assert_free
from tests.support.scenes import Scene
from tests.support.scenes import STOPPABLE

pytestmark = [
    needs_fork,
    # What the warning is about is what is tested here.
    pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning'),
]


@pytest.mark.parametrize(
    'path',
    sorted(map(str, Path(proxystore_local.__file__).parent.glob('*.py'))),
    ids=lambda path: Path(path).stem,
)
def test_nothing_is_done_before_a_fork_or_in_the_parent(
    monkeypatch: pytest.MonkeyPatch,
    path: str,
) -> None:
    with mock.patch.object(os, 'register_at_fork') as register:
        runpy.run_path(path)
    for made in register.mock_calls:
        assert made.args == ()
        assert made.kwargs.keys() == {'after_in_child'}
    # Each module can be imported where there is no fork.
    monkeypatch.delattr(os, 'register_at_fork')
    runpy.run_path(path)


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
            calls = iter([fork, scene.leave])

            def wait() -> None:
                next(calls)()

            scene.on_wait = wait
            OPERATIONS[operation](scene.connector)

        assert fork_inside(run, lambda: assert_free(scene.connector)) == 0
    assert_free(scene.connector)


@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_fork_at_every_point(operation: str) -> None:
    for point in itertools.count(1):
        connector = LocalConnector(include_data_in_config=True)
        forked = False

        def run(
            fork: Callable[[], object],
            point: int = point,
            connector: LocalConnector = connector,
        ) -> None:
            nonlocal forked
            work = partial(OPERATIONS[operation], connector)
            forked = at_point(point, fork, work)
            if not forked:
                fork()

        assert fork_inside(run, partial(assert_free, connector)) == 0
        assert_free(connector)
        if not forked:
            break


def test_parent_and_child_mint_different_keys() -> None:
    # The child first where it is early: in a handler that was registered
    # before the package was imported.
    program = """if True:
        import os

        out, into = os.pipe()

        def write_key():
            os.write(into, connector.new_key().id.encode() + b' ')

        os.register_at_fork(after_in_child=write_key)
        from proxystore_local import LocalConnector

        connector = LocalConnector()
        pid = os.fork()
        if pid == 0:
            write_key()
            os._exit(0)
        os.waitpid(pid, 0)
        theirs = os.read(out, 1000).decode().split()
        ours = {connector.new_key().id for _ in range(300)}
        assert len(theirs) == 2
        assert ours.isdisjoint(theirs)
    """
    code, printed = run_apart('-c', program)
    assert code == 0, printed
