"""Nobody starves, and threads that have ended leave nothing behind."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Callable

import pytest

from proxystore_local import guarded
from proxystore_local import LocalConnector
from proxystore_local.guarded import GuardedDict
from tests.checks import A
from tests.checks import held
from tests.checks import OPERATIONS
from tests.harness import hooked
from tests.harness import once
from tests.harness import PATIENCE
from tests.harness import reported_waits


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ('many', 'one'),
    [('get', 'set'), ('set', 'get'), ('set', 'set')],
)
def test_one_thread_is_reached_among_many_that_never_pause(
    many: str,
    one: str,
) -> None:
    connector = LocalConnector()
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

    threads = [
        threading.Thread(target=never_pause, daemon=True) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    start.wait(PATIENCE)
    for _ in range(50):
        operations[one]()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize('second', OPERATIONS)
@pytest.mark.parametrize('first', OPERATIONS)
def test_nobody_waits_for_nobody(first: str, second: str) -> None:
    def fail() -> None:
        raise AssertionError(f'{second} waits after {first}')

    connector = LocalConnector({A: b'0'}, include_data_in_config=True)
    with reported_waits(fail, threading.Event()):
        OPERATIONS[first](connector)
        OPERATIONS[second](connector)


@pytest.mark.timeout(60)
def test_readers_that_overlap_let_a_writer_in() -> None:
    # There is a reader inside at any time, unless those that come let the
    # writer go first.
    connector = LocalConnector({A: b'old'})
    written = threading.Event()
    overlap = threading.Condition()
    inside = 0

    def linger() -> None:
        nonlocal inside
        with overlap:
            inside += 1
            overlap.notify_all()
            overlap.wait_for(lambda: inside > 1 or written.is_set(), 0.5)
            inside -= 1

    def read() -> None:
        while not written.is_set():
            connector.get(hooked(A, once(linger)))

    readers = [threading.Thread(target=read, daemon=True) for _ in range(4)]
    for reader in readers:
        reader.start()
    connector.set(A, b'new')
    written.set()
    for reader in readers:
        reader.join(PATIENCE)
        assert not reader.is_alive()
    assert connector.get(A) == b'new'


@pytest.mark.timeout(60)
def test_a_reader_does_not_pass_a_writer_that_waits() -> None:
    waits: list[str] = []
    left = threading.Event()
    writer_waits = threading.Event()

    def report() -> None:
        waits.append(threading.current_thread().name)
        writer_waits.set()

    def write_and_read() -> None:
        for name, work in (('writer', write), ('reader', read)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            threads.append(thread)
            writer_waits.clear()
            thread.start()
            assert writer_waits.wait(PATIENCE)

    def write() -> None:
        connector.set(A, b'new')

    def read() -> None:
        connector.get(A)

    threads: list[threading.Thread] = []
    connector = LocalConnector({A: b'old'})
    with reported_waits(report, left):
        connector.get(hooked(A, once(write_and_read)))
        left.set()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert waits[:2] == ['writer', 'reader']


@pytest.mark.timeout(60)
def test_a_reader_opens_no_dict_that_a_writer_is_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits = 0
    found: list[bytes | None] = []
    met, left = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 10:  # More than it takes to open one that was left.
            met.set()
            assert left.wait(PATIENCE)

    def read() -> None:
        try:
            found.append(connector.get(A))
        finally:
            met.set()

    def meet() -> None:
        reader.start()
        assert met.wait(PATIENCE)

    monkeypatch.setattr(guarded, 'sleep', sleep)
    connector = LocalConnector({A: b'old'})
    reader = threading.Thread(target=read, daemon=True)
    connector.set(hooked(A, once(meet)), b'new')
    left.set()
    reader.join(PATIENCE)
    assert found == [b'new']
    assert waits == 10


@pytest.mark.timeout(60)
def test_readers_share_again_after_a_writer_gave_up() -> None:
    # It was interrupted as it waited, and left the dict closed.
    class GiveUpError(Exception):
        pass

    def give_up() -> None:
        raise GiveUpError

    def write() -> None:
        with (
            reported_waits(give_up, threading.Event()),
            pytest.raises(GiveUpError),
        ):
            guard.set(A, b'new')

    guard = GuardedDict({A: b'old'})
    guard.get(hooked(A, once(write)))
    inside = threading.Barrier(2)
    key = hooked(A, once(lambda: inside.wait(PATIENCE)))
    reader = threading.Thread(target=guard.get, args=(key,), daemon=True)
    reader.start()
    key = hooked(A, once(lambda: inside.wait(PATIENCE)))
    assert guard.get(key) == b'old'
    reader.join(PATIENCE)
    guard.set(A, b'new')
    assert guard.get(A) == b'new'


@pytest.mark.timeout(60)
@pytest.mark.parametrize('stopped', ['get', 'set'])
def test_nobody_waits_for_a_thread_that_was_stopped_at_exit(
    monkeypatch: pytest.MonkeyPatch,
    stopped: str,
) -> None:
    connector = LocalConnector({A: b'old'})
    with held(connector, stopped):
        monkeypatch.setattr(guarded, 'is_finalizing', lambda: True)
        for operation in OPERATIONS.values():
            operation(connector)


@pytest.mark.timeout(120)
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
