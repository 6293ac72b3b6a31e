"""Nobody starves, and threads that have ended leave nothing behind."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from functools import partial
from unittest import mock

import pytest

from proxystore_local import guarded
from proxystore_local import LocalConnector
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS
from tests.support.scenes import hooked
from tests.support.scenes import once
from tests.support.scenes import Scene
from tests.support.scenes import waits


@pytest.mark.parametrize('second', OPERATIONS)
@pytest.mark.parametrize('first', OPERATIONS)
def test_nobody_waits_for_nobody(first: str, second: str) -> None:
    connector = LocalConnector(dict(CONTENTS), include_data_in_config=True)
    with waits(lambda: pytest.fail(f'{second} waits after {first}')):
        OPERATIONS[first](connector)
        OPERATIONS[second](connector)


def test_a_reader_does_not_pass_a_writer_that_waits() -> None:
    with Scene() as scene:
        scene.stop('get')
        for name in ('set', 'get'):
            how_far, _ = scene.attempt(
                lambda name=name: OPERATIONS[name](scene.connector),  # type: ignore[misc]
            )
            assert how_far == 'blocked'


def test_a_reader_opens_no_dict_that_a_writer_is_in() -> None:
    pauses = iter(range(9))
    with Scene() as scene:
        wait = scene.on_wait

        def pause() -> None:
            # More often than it takes to open a dict that was left closed.
            if next(pauses, None) is None:
                wait()

        scene.on_wait = pause
        scene.stop('set')
        how_far, _ = scene.attempt(lambda: scene.connector.get(A))
        assert how_far == 'blocked'


def test_a_writer_that_gave_up_keeps_no_reader_out() -> None:
    with Scene() as scene:
        scene.stop('get')
        # It is interrupted as it waits, and leaves the dict closed.
        scene.on_wait = mock.Mock(side_effect=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            scene.connector.set(A, b'new')
        scene.leave()
        # The next reader opens it after a few pauses.
        scene.on_wait = mock.Mock(side_effect=range(9))
        assert scene.connector.get(A) == b'a0'
        scene.on_wait = lambda: pytest.fail('who comes later waits as well')
        assert scene.connector.get_batch([A]) == [b'a0']


@pytest.mark.parametrize('stopped', ['get', 'set'])
def test_nobody_waits_for_a_thread_that_was_stopped_at_exit(
    monkeypatch: pytest.MonkeyPatch,
    stopped: str,
) -> None:
    with Scene() as scene:
        scene.stop(stopped)
        scene.on_wait = bool
        monkeypatch.setattr(guarded, 'is_finalizing', lambda: True)
        for operation in OPERATIONS.values():
            operation(scene.connector)


def test_a_reader_that_goes_on_with_a_new_lock_keeps_writers_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As it waits, the lock is replaced, as at exit and after a fork.
    replaced = iter([True])
    monkeypatch.setattr(
        guarded, 'is_finalizing', lambda: next(replaced, False)
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
        assert scene.connector.get(hooked(A, once(meet))) == b'a0'
    assert met == ['blocked']


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
