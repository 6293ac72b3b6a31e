"""Reads share the dict; a write has it alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.checks import A
from tests.checks import check_queued_readers_share
from tests.checks import check_readers_share
from tests.checks import check_readers_share_after_writes
from tests.checks import check_writers_exclude
from tests.harness import LOCKS
from tests.harness import PATIENCE


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_share(lock: str) -> None:
    check_readers_share(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_writers_exclude(lock: str) -> None:
    check_writers_exclude(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_share_after_writes(lock: str) -> None:
    check_readers_share_after_writes(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_who_queued_behind_a_writer_share(lock: str) -> None:
    check_queued_readers_share(LOCKS[lock])


def test_a_reader_looks_again_once_it_has_its_own_lock() -> None:
    # A writer comes and goes after the reader has found the way past the gate
    # open, and before it has its lock.
    store: dict[LocalKey, bytes] = {A: b'old'}
    inside, leave = threading.Event(), threading.Event()
    taken: list[bool] = []

    class OwnLock:
        def __init__(self) -> None:
            self.lock = threading.RLock()
            self.release = self.lock.release

        def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
            if threading.current_thread() is not threading.main_thread():
                return self.lock.acquire(blocking, timeout)
            if not taken:
                leave.set()
                run(reader.join)
                run(connector.set, A, b'new')
            taken.append(self.lock.acquire(blocking, timeout))
            return taken[-1]

    def linger(_: object) -> None:
        inside.set()
        assert leave.wait(PATIENCE)

    lock = BigReaderLock()
    connector = LocalConnector(store, lock=lock)
    reader = threading.Thread(target=lock.shared, args=(linger, None))
    reader.start()
    assert inside.wait(PATIENCE)
    lock._entered[threading.get_ident()] = OwnLock()
    assert connector.get(A) == b'new'
    assert taken == [True]


def run(work: Callable[..., object], *arguments: object) -> None:
    """Do something on another thread, to the end."""
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
