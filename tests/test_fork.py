"""Forks: parent and child go on with a connector that is whole."""

from __future__ import annotations

import faulthandler
import itertools
import os
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

import proxystore_local
from proxystore_local import guarded
from proxystore_local import keys
from proxystore_local import LocalConnector
from tests.checks import A
from tests.checks import B
from tests.checks import held
from tests.checks import OPERATIONS
from tests.checks import STOPPED
from tests.harness import load
from tests.harness import once
from tests.harness import PATIENCE
from tests.test_interrupts import at_point

pytestmark = [
    pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork'),
    # What the warning is about is what is tested here.
    pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning'),
    pytest.mark.timeout(60),
]

MODULES = [
    Path(str(proxystore_local.__file__)).with_name(f'{module.name}.py')
    for module in pkgutil.iter_modules(proxystore_local.__path__)
]


def fork_inside(
    run: Callable[[Callable[[], object]], object],
    work: Callable[[], object],
) -> int:
    """Fork in the middle of something, with which both sides go on.

    Args:
        run: What to do. It is given the function that forks.
        work: What the child does when it was forked, and again when `run` has
            returned.

    Returns:
        The child's status, which is not 0 if it failed or hung.
    """
    pid = -1

    def fork() -> None:
        nonlocal pid
        pid = os.fork()
        if pid == 0:
            # A child that hangs ends with this signal, and says where.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, 2, chain=True)
            signal.alarm(PATIENCE)
            work()

    try:
        run(fork)
        if pid == 0:
            work()
            os._exit(0)
    except BaseException:
        if pid != 0:
            raise
        traceback.print_exc()
    finally:
        if pid == 0:
            os._exit(1)
    assert pid > 0
    return await_child(pid)


def await_child(pid: int) -> int:
    """Wait for a child, and return its status: killed, if it hangs."""
    killer = threading.Timer(
        PATIENCE * 1.5,
        os.kill,
        (pid, signal.SIGKILL),
    )
    killer.start()
    try:
        return os.waitpid(pid, 0)[1]
    finally:
        killer.cancel()


def use(connector: LocalConnector) -> None:
    """Do every operation, in this thread and in another."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for operation in OPERATIONS.values():
                operation(connector)
        except BaseException as error:
            failures.append(error)

    work()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert failures == []


def make_connector() -> LocalConnector:
    return LocalConnector({A: b'0', B: b'0'}, include_data_in_config=True)


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.stem)
def test_nothing_is_done_before_a_fork_or_in_the_parent(path: Path) -> None:
    with mock.patch.object(os, 'register_at_fork') as register:
        load(path)
    for call in register.mock_calls:
        assert call.args == ()
        assert call.kwargs.keys() == {'after_in_child'}


@pytest.mark.parametrize('path', MODULES, ids=lambda path: path.stem)
def test_all_can_be_imported_where_there_is_no_fork(
    monkeypatch: pytest.MonkeyPatch,
    path: Path,
) -> None:
    monkeypatch.delattr(os, 'register_at_fork')
    load(path)


@pytest.mark.parametrize('operation', STOPPED)
def test_a_child_does_not_wait_for_threads_that_it_does_not_have(
    operation: str,
) -> None:
    connectors = [make_connector() for _ in range(3)]

    def check() -> None:
        for connector in connectors:
            use(connector)

    with held(connectors[1], operation):
        assert fork_inside(lambda fork: fork(), check) == 0
    check()


@pytest.mark.parametrize('operation', STOPPED)
def test_a_fork_in_the_middle_of_an_operation(operation: str) -> None:
    connector = make_connector()

    def run(fork: Callable[[], object]) -> None:
        STOPPED[operation](connector, once(fork))

    assert fork_inside(run, lambda: use(connector)) == 0
    use(connector)


@pytest.mark.parametrize('holder', ['get', 'set'])
@pytest.mark.parametrize('operation', OPERATIONS)
def test_a_fork_while_an_operation_waits(operation: str, holder: str) -> None:
    # As by a signal handler, or by a finalizer.
    connector = make_connector()

    def run(fork: Callable[[], object]) -> None:
        calls = itertools.chain([fork], itertools.repeat(leave))
        sleep = mock.Mock(side_effect=lambda _: next(calls)())
        with mock.patch.object(guarded, 'sleep', sleep):
            OPERATIONS[operation](connector)
            if next(calls) is fork:
                fork()  # As a read beside a read does not wait.

    def check() -> None:
        with mock.patch.object(guarded, 'sleep'):
            use(connector)

    with held(connector, holder) as leave:
        assert fork_inside(run, check) == 0
    use(connector)


@pytest.mark.skipif(
    not getattr(sys, '_is_gil_enabled', lambda: True)(),
    reason='without a GIL, a child may hang in CPython itself',
)
def test_many_threads_fork_at_once() -> None:
    connector = make_connector()
    start = threading.Barrier(4)
    statuses: list[int] = []

    def work() -> None:
        for _ in range(5):
            start.wait(PATIENCE)
            statuses.append(
                fork_inside(lambda fork: fork(), lambda: use(connector)),
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 20
    use(connector)


@pytest.mark.parametrize('size', [0, 100])
def test_parent_and_child_never_mint_the_same_key(
    tmp_path: Path,
    size: int,
) -> None:
    # Wherever in mint() a signal handler forks.
    def mint_more() -> None:
        with open(theirs, 'a') as file:
            file.writelines(keys.mint().id + '\n' for _ in range(300))

    for point in itertools.count(1):
        forked = False
        theirs = tmp_path / f'{point}'
        keys._mine.pool = [keys.mint() for _ in range(size)]

        def run(fork: Callable[[], object], point: int = point) -> None:
            nonlocal forked
            forked = at_point(point, fork, keys.mint)
            if not forked:
                fork()

        assert fork_inside(run, mint_more) == 0
        ids = [keys.mint().id for _ in range(300)]
        ids += theirs.read_text().split()
        assert len(ids) == len(set(ids)) == 900
        if not forked:
            break
