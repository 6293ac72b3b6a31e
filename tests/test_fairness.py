"""Nobody waits for ever: readers that never pause, writers that never do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from tests.checks import A
from tests.harness import instrumented_locks
from tests.harness import PATIENCE
from tests.harness import SteppingDict


@pytest.mark.timeout(120)
@pytest.mark.parametrize('stepping', [True, False])
@pytest.mark.parametrize(
    ('many', 'one'),
    [('get', 'set'), ('set', 'get'), ('set', 'set')],
)
def test_one_thread_is_reached_among_many_that_never_pause(
    many: str,
    one: str,
    stepping: bool,
) -> None:
    # On the stepping dict the many overlap all the time.
    store = SteppingDict(hook=lambda: time.sleep(0)) if stepping else {}
    connector = LocalConnector(store)
    operations: dict[str, Callable[[], object]] = {
        'get': lambda: connector.get(A),
        'set': lambda: connector.set(A, b''),
    }
    stop = threading.Event()
    start = threading.Barrier(5)

    def never_pause() -> None:
        start.wait(PATIENCE)
        while not stop.is_set():
            operations[many]()

    threads = [threading.Thread(target=never_pause) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait(PATIENCE)
    for _ in range(50):
        operations[one]()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)


@pytest.mark.timeout(60)
def test_a_reader_does_not_pass_a_writer_who_waits() -> None:
    inside, leave, waiting = (threading.Event() for _ in range(3))
    done: list[str] = []

    def linger(_: None) -> None:
        inside.set()
        assert leave.wait(PATIENCE)

    def about_to_block() -> None:
        if threading.current_thread() is writer:
            waiting.set()
        else:
            done.append('blocked')
            leave.set()

    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
        reader = threading.Thread(target=lock.shared, args=(linger, None))
        writer = threading.Thread(target=lock.exclusive, args=(len, ''))
        reader.start()
        assert inside.wait(PATIENCE)
        writer.start()
        assert waiting.wait(PATIENCE)
        lock.shared(done.append, 'read')
        for thread in (reader, writer):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert done == ['blocked', 'read']
