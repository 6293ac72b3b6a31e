"""Nobody starves, and threads that have ended leave nothing behind."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import seqlocked
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS
from tests.support.scenes import hooked
from tests.support.scenes import once
from tests.support.scenes import Scene
from tests.support.scenes import start
from tests.support.scenes import waits


@pytest.mark.parametrize('second', OPERATIONS)
@pytest.mark.parametrize('first', OPERATIONS)
def test_an_operation_waits_for_none_that_has_ended(
    first: str, second: str
) -> None:
    connector = LocalConnector(dict(CONTENTS), include_data_in_config=True)
    with waits(lambda: pytest.fail(f'{second} waits after {first}')):
        OPERATIONS[first](connector)
        OPERATIONS[second](connector)


def read_disturbed(scene: Scene, *hooks: Callable[[], object]) -> None:
    """Read, and call the first hook in the middle; then the next, if again."""
    key = hooked(A, once(*hooks))
    assert scene.connector.get(key) == CONTENTS[A]


def test_a_read_that_writes_have_disturbed_keeps_them_out() -> None:
    became: list[str] = []
    with Scene() as scene:

        def write() -> None:
            write = partial(scene.connector.set, B, b'%d' % len(became))
            became.append(scene.attempt(write)[0])

        read_disturbed(scene, write, write, write)
        assert became == ['done', 'done', 'blocked']
    assert scene.store[B] == b'2'


def test_a_read_that_runs_alone_disturbs_no_other() -> None:
    compared: list[int] = []
    inside = threading.Event()
    with Scene() as scene:

        def write() -> None:
            write = partial(scene.connector.set, B, b'')
            assert scene.attempt(write)[0] == 'done'

        def stay() -> None:
            compared.append(1)
            inside.set()
            assert scene.left.wait(PATIENCE)

        def write_and_read() -> None:
            write()
            read = partial(scene.connector.get, hooked(A, stay))
            scene.threads.append(start(read))
            assert inside.wait(PATIENCE)

        read_disturbed(scene, write, write_and_read)
    assert compared == [1], 'the read was repeated'


@pytest.mark.parametrize('work', ['read', 'write'])
@pytest.mark.usefixtures('tiny_switch_interval')
def test_nobody_starves(work: str) -> None:
    connector = LocalConnector()
    keys = connector.put_batch([b''] * 100_000)
    over = threading.Event()

    def again(operation: Callable[[], Any]) -> None:
        while not over.is_set():
            operation()

    read = partial(connector.get_batch, keys)
    write = partial(connector.set, A, b'')
    one, others = (read, write) if work == 'read' else (write, read)
    threads = [start(partial(again, others)) for _ in range(4)]
    for _ in range(10):
        start(one).result(PATIENCE)
    over.set()
    for thread in threads:
        thread.result(PATIENCE)


def test_nobody_waits_for_a_thread_that_was_stopped_at_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Scene() as scene:
        scene.stop('set')
        scene.on_wait = bool
        monkeypatch.setattr(seqlocked, 'is_finalizing', lambda: True)
        for operation in OPERATIONS.values():
            operation(scene.connector)


def test_a_writer_that_goes_on_with_a_new_lock_keeps_others_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As it waits, the lock is replaced, as at exit and after a fork.
    replaced = iter([True])
    monkeypatch.setattr(
        seqlocked, 'is_finalizing', lambda: next(replaced, False)
    )
    met: list[str] = []
    with Scene() as scene:
        scene.stop('set')
        wait = scene.on_wait
        pauses = iter([bool])

        def pause() -> None:
            next(pauses, wait)()

        def meet() -> None:
            write = partial(scene.connector.set, A, b'1')
            met.append(scene.attempt(write)[0])

        scene.on_wait = pause
        scene.connector.set(hooked(A, once(meet)), b'2')
    assert met == ['blocked']
    assert scene.store[A] == b'1'


def test_threads_leave_nothing_behind() -> None:
    def work() -> None:
        for key in connector.put_batch([b'value'] * 3):
            connector.get(key)
            connector.evict(key)
        connector.evict(connector.put(b'value'))

    def run(count: int) -> int:
        for _ in range(count):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(PATIENCE)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    connector = LocalConnector()
    tracemalloc.start()
    try:
        before = run(50)
        # Less than two pointers for each.
        assert run(1_000) - before < 1_000 * 16
    finally:
        tracemalloc.stop()
