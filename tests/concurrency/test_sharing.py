"""Reads share the dict; a write has it alone."""

from __future__ import annotations

import itertools
import threading
from functools import partial

import pytest

from proxystore_local import LocalConnector
from tests.support.locks import LockMaker
from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.operations import A
from tests.support.operations import OPERATIONS
from tests.support.operations import READS
from tests.support.scenes import hooked
from tests.support.scenes import once
from tests.support.scenes import Scene
from tests.support.scenes import start
from tests.support.scenes import STOPPABLE

every_lock = pytest.mark.parametrize('lock', LOCKS)


def meet(make_lock: LockMaker, first: str, second: str, other: bool) -> str:
    """Try an operation beside another, and tell how far it gets."""
    with Scene(make_lock) as scene:
        scene.stop(first)
        connector = scene.second if other else scene.connector
        return scene.attempt(partial(OPERATIONS[second], connector))[0]


def read_together(
    connector: LocalConnector, inside: threading.Barrier
) -> None:
    """Read, and in the middle wait for others that read."""
    connector.get(hooked(A, once(lambda: inside.wait(PATIENCE))))


def check_readers_share(make_lock: LockMaker) -> None:
    """Every two reads are inside the dict at once."""
    for first, second in itertools.product(STOPPABLE, READS):
        if first in READS:
            how_far = meet(make_lock, first, second, other=False)
            assert how_far == 'done', f'{second} during {first}: {how_far}'


def check_readers_share_after_writes(make_lock: LockMaker) -> None:
    """Many reads are inside the dict at once, again after each write."""
    connector = LocalConnector(lock=make_lock(lock_factory=threading.Lock))
    count = 5
    inside = threading.Barrier(count)
    for _ in range(3):
        connector.put_batch([b'0', b'0'])
        connector.set(A, b'0')
        readers = [
            start(lambda: read_together(connector, inside))
            for _ in range(count)
        ]
        for reader in readers:
            reader.result(2 * PATIENCE)


def check_queued_readers_share(make_lock: LockMaker) -> None:
    """Reads that waited for a write are inside the dict at once."""
    count = 3
    inside = threading.Barrier(count)
    with Scene(make_lock) as scene:
        scene.stop('set')
        for _ in range(count):
            how_far, _ = scene.attempt(
                lambda: read_together(scene.connector, inside),
            )
            assert how_far == 'blocked'


def check_writers_exclude(make_lock: LockMaker) -> None:
    """No operation is inside the dict beside one that writes."""
    for first, second in itertools.product(STOPPABLE, OPERATIONS):
        if not (first in READS and second in READS):
            for other in (False, True):
                how_far = meet(make_lock, first, second, other)
                assert how_far == 'blocked', f'{second} during {first}'


SHARING = {
    'readers': check_readers_share,
    'readers after writes': check_readers_share_after_writes,
    'readers that queued behind a writer': check_queued_readers_share,
}


@every_lock
@pytest.mark.parametrize('check', SHARING)
def test_share(check: str, lock: str) -> None:
    SHARING[check](LOCKS[lock])


@every_lock
def test_writers_exclude(lock: str) -> None:
    check_writers_exclude(LOCKS[lock])
