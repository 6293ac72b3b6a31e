"""Finalizers and signal handlers use the connector inside its operations."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from tests.checks import A
from tests.checks import B
from tests.checks import OPERATIONS
from tests.harness import instrumented_locks
from tests.harness import PATIENCE
from tests.harness import SteppingDict


@pytest.mark.timeout(60)
@pytest.mark.parametrize('reading_threads', [0, 1, 2])
@pytest.mark.parametrize('inner', OPERATIONS)
@pytest.mark.parametrize('outer', OPERATIONS)
def test_an_operation_inside_another(
    outer: str,
    inner: str,
    reading_threads: int,
) -> None:
    store = SteppingDict()
    connector = LocalConnector(store, include_data_in_config=True)
    connector.set(A, b'0')
    connector.set(B, b'0')
    leave = threading.Event()
    readers = [
        threading.Thread(
            target=lambda: (connector.get(A), leave.wait(PATIENCE)),
        )
        for _ in range(reading_threads)
    ]
    for reader in readers:
        reader.start()
    results: list[Any] = []

    def hook() -> None:
        if threading.current_thread() is threading.main_thread():
            store.hook = lambda: None
            results.append(OPERATIONS[inner](connector))

    store.hook = hook
    results.append(OPERATIONS[outer](connector))
    assert len(results) == 2
    leave.set()
    for reader in readers:
        reader.join(PATIENCE)
    # What was done inside is seen by the reads that follow.
    for operation, result in zip((inner, outer), results):
        if operation == 'put':
            assert connector.get(result) == b'1'
        elif operation == 'put_batch':
            assert connector.get_batch(result) == [b'1', b'2']
        elif operation == 'evict':
            assert not connector.exists(A)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('inner', OPERATIONS)
def test_inside_a_read_while_a_writer_waits_for_it(inner: str) -> None:
    # Another reader has the gate, so we read under our own lock. When it has
    # left, the writer has the gate and waits for that lock: we must let go of
    # it before we queue, and read again what the writer may have changed.
    store = SteppingDict()
    inside, leave, waiting = (threading.Event() for _ in range(3))

    def about_to_block() -> None:
        if threading.current_thread() is writer:
            waiting.set()

    def await_writer() -> None:
        assert waiting.wait(PATIENCE)
        waiting.clear()

    def hook() -> None:
        if threading.current_thread() is reader:
            inside.set()
            assert leave.wait(PATIENCE)
        elif threading.current_thread() is threading.main_thread():
            store.hook = lambda: None
            writer.start()
            await_writer()  # At the gate.
            leave.set()
            await_writer()  # For us.
            OPERATIONS[inner](connector)

    def write() -> None:
        connector.set(A, b'new')
        connector.set(B, b'new')

    with instrumented_locks(about_to_block):
        connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=BigReaderLock(),
        )
        connector.set(A, b'old')
        connector.set(B, b'old')
        reader = threading.Thread(target=connector.get, args=(A,), daemon=True)
        writer = threading.Thread(target=write, daemon=True)
        store.hook = hook
        reader.start()
        assert inside.wait(PATIENCE)
        read = connector.get_batch([A, B])
        for thread in (reader, writer):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    # Not [old, new], which no moment had.
    evicted = [None, b'old'], [None, b'new'], [b'new', b'new']
    assert read in ([b'new', b'old'], [b'new', b'new'], *evicted)
    assert connector.get(B) == b'new'


@pytest.mark.timeout(60)
@pytest.mark.parametrize('at_once', [True, False])
def test_a_read_that_always_writes_runs_again_but_once(at_once: bool) -> None:
    inside, leave = threading.Event(), threading.Event()
    others: list[str] = []
    runs = 0

    def linger(_: object) -> None:
        inside.set()
        assert leave.wait(PATIENCE)

    def about_to_block() -> None:
        if threading.current_thread() is threading.main_thread():
            leave.set()
        else:
            others.append('blocked')
            tried.set()

    def write() -> None:
        lock.exclusive(others.append, 'inside')
        tried.set()

    def write_in_the_middle(_: object) -> None:
        nonlocal runs
        runs += 1
        if at_once:
            # Then the gate is free, else we wait for it.
            leave.set()
            reader.join(PATIENCE)
        lock.exclusive(lambda: None)
        if runs == 2:
            # Nobody writes beside us.
            writer.start()
            assert tried.wait(PATIENCE)
            assert others == ['blocked']

    tried = threading.Event()
    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
        reader = threading.Thread(target=lock.shared, args=(linger, None))
        writer = threading.Thread(target=write)
        reader.start()
        assert inside.wait(PATIENCE)
        lock.shared(write_in_the_middle, None)
        assert runs == 2
        for thread in (reader, writer):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert others == ['blocked', 'inside']
