"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import itertools
import os
import runpy
from collections.abc import Callable
from functools import partial
from operator import call
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import proxystore_local
from proxystore_local import keys
from tests.support.operations import OPERATIONS
from tests.support.operations import WRITES
from tests.support.points import at_point
from tests.support.processes import fork_inside
from tests.support.processes import needs_fork
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


@pytest.mark.parametrize(
    ('holder', 'operation'),
    [
        *itertools.product(['set'], OPERATIONS),
        *itertools.product(['get'], WRITES),
    ],
)
def test_a_fork_while_an_operation_waits(operation: str, holder: str) -> None:
    # As by a signal handler, or by a finalizer.
    with Scene() as scene:
        scene.stop(holder)

        def run(fork: Callable[[], object]) -> None:
            calls = iter([fork, scene.leave])

            def wait() -> None:
                next(calls)()

            scene.on_wait = wait
            OPERATIONS[operation](scene.connector)

        assert fork_inside(run, lambda: assert_free(scene.connector)) == 0
    assert_free(scene.connector)


@pytest.mark.parametrize('handler_mints', [True, False])
@pytest.mark.parametrize('size', [None, 0, 100])
def test_parent_and_child_never_mint_the_same_key(
    tmp_path: Path,
    size: int | None,
    handler_mints: bool,
) -> None:
    # Wherever in mint() a signal handler forks: in a thread that has had no
    # keys yet, has none left, or has some. The child mints when the handler
    # has returned, and maybe before.
    for point in itertools.count(1):
        forked = False
        theirs = tmp_path / f'{point}'
        mints = iter([handler_mints, True])
        vars(keys._pool).clear()
        if size is not None:
            keys._pool.keys = iter([keys.mint() for _ in range(size)])

        def run(fork: Callable[[], object], point: int = point) -> None:
            nonlocal forked
            forked = at_point(point, fork, keys.mint)
            if not forked:
                fork()

        def mint_more(theirs: Path = theirs, mints: Any = mints) -> None:
            with open(theirs, 'a') as file:
                if next(mints):
                    file.writelines(keys.mint().id + '\n' for _ in range(300))

        assert fork_inside(run, mint_more) == 0
        ids = [keys.mint().id for _ in range(300)]
        ids += theirs.read_text().split()
        assert len(ids) == len(set(ids)) == (900 if handler_mints else 600)
        if not forked:
            break
