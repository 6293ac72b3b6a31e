"""Nobody starves, and no operation waits needlessly."""

from __future__ import annotations

import threading
from functools import partial
from unittest import mock

import pytest

from proxystore_local import seqlocked
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.operations import KEYS
from tests.support.operations import OPERATIONS
from tests.support.operations import WRITES
from tests.support.scenes import hooked
from tests.support.scenes import minted
from tests.support.scenes import once
from tests.support.scenes import Scene


@pytest.mark.parametrize('second', OPERATIONS)
@pytest.mark.parametrize('first', OPERATIONS)
def test_an_operation_waits_for_none_that_has_ended(
    first: str, second: str
) -> None:
    with Scene() as scene:
        scene.on_wait = lambda: pytest.fail(f'{second} waits after {first}')
        OPERATIONS[first](scene.connector)
        OPERATIONS[second](scene.connector)


@pytest.mark.parametrize('second', WRITES)
@pytest.mark.parametrize('first', ['get', 'exists', 'get_batch'])
def test_a_read_that_writes_have_disturbed_keeps_them_out(
    first: str, second: str
) -> None:
    became: list[str] = []
    with Scene() as scene, minted(KEYS):

        def write() -> None:
            scene.store[B] = b''  # So that evict finds it.
            work = partial(OPERATIONS[second], scene.connector, number=1)
            became.append(scene.attempt(work)[0])

        # In the middle of the first read, of the second, and of the third.
        key = hooked(A, once(write, write, write))
        OPERATIONS[first](scene.connector, keys=[key, B])
    assert became == ['done', 'done', 'blocked']


def test_reads_that_have_waited_for_a_write_share() -> None:
    inside = threading.Barrier(2, timeout=PATIENCE)
    with Scene() as scene:
        scene.stop('set')
        for _ in range(2):
            # Without a GIL, a dict may compare a key twice as it reads once.
            key = hooked(A, once(inside.wait))
            read = partial(scene.connector.exists, key)
            assert scene.attempt(read)[0] == 'blocked'


def test_a_read_that_runs_alone_disturbs_no_other() -> None:
    with Scene() as scene:
        write = partial(scene.connector.set, B, b'new')

        def write_and_start_other() -> None:
            write()
            scene.stop('get_batch')  # Of A, B and A.

        # It is disturbed twice, so the third time it runs alone.
        scene.connector.get(hooked(A, once(write, write_and_start_other)))
        # The other is still in the middle, and has read A. If it started over,
        # it would get this twice.
        scene.store[A] = b'new'
    assert scene.threads[0].result() == [CONTENTS[A], b'new', b'new']


@pytest.mark.parametrize('name', ['get', 'set'])
def test_the_longer_a_thread_has_waited_the_sooner_it_tries_again(
    name: str,
) -> None:
    pauses: list[float] = []
    with Scene() as scene:

        def sleep(pause: float) -> None:
            pauses.append(pause)
            if len(pauses) == 10:
                scene.leave()

        scene.stop('set')
        with mock.patch.object(seqlocked, 'sleep', sleep):
            OPERATIONS[name](scene.connector)
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[-1] < 0.1 * pauses[0]


def test_nobody_waits_for_a_thread_that_was_stopped_at_exit() -> None:
    with (
        Scene() as scene,
        mock.patch.object(seqlocked, 'is_finalizing', return_value=True),
    ):
        scene.stop('set')
        scene.on_wait = bool
        for operation in OPERATIONS.values():
            operation(scene.connector)


def test_a_writer_that_goes_on_with_a_new_lock_keeps_others_out() -> None:
    became: list[str] = []
    # The lock is replaced in place of the first wait, as at exit.
    replaced = [True, False]
    with (
        Scene() as scene,
        mock.patch.object(seqlocked, 'is_finalizing', side_effect=replaced),
    ):

        def write() -> None:
            work = partial(scene.connector.set, A, b'other')
            became.append(scene.attempt(work)[0])

        scene.stop('set')
        scene.connector.set(hooked(A, once(write)), b'new')
    assert became == ['blocked']
    assert scene.store[A] == b'other'
