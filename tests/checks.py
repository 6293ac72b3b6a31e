"""What must hold between threads, as checks that any lock can be put through.

Each takes a function that makes a lock from a lock factory, and raises an
AssertionError if that lock lets threads see what they must not. The subject's
own test file runs a check for every lock that we accept; test_without_lock.py
shows that it fails without one.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from typing import TypeAlias

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.locks import ReaderWriterLock
from tests.harness import instrumented_locks
from tests.harness import Meeting
from tests.harness import PATIENCE
from tests.harness import ReportingLock
from tests.harness import SteppingDict

LockMaker: TypeAlias = Callable[..., ReaderWriterLock]
Check: TypeAlias = Callable[[LockMaker], None]

A, B, NEW = LocalKey('a'), LocalKey('b'), LocalKey('new')

Operation: TypeAlias = Callable[[LocalConnector], Any]

READS: dict[str, Operation] = {
    'get': lambda connector: connector.get(A),
    'exists': lambda connector: connector.exists(A),
    'get_batch': lambda connector: connector.get_batch([A, B]),
    'len': len,
    'config': lambda connector: connector.config(),
}
WRITES: dict[str, Operation] = {
    'put': lambda connector: connector.put(b'1'),
    'put_batch': lambda connector: connector.put_batch([b'1', b'2']),
    'set': lambda connector: connector.set(NEW, b'1'),
    'evict': lambda connector: connector.evict(A),
}
OPERATIONS = READS | WRITES


def meet(
    make_lock: LockMaker,
    first: Operation,
    second: Operation,
    *,
    second_connector: bool = False,
) -> tuple[str, Any, Any]:
    """Run an operation on a connector in the middle of another.

    Args:
        make_lock: Makes the lock.
        first: Operation that is interrupted half way.
        second: Operation that another thread runs meanwhile.
        second_connector: Run it on a second connector on the same dict.

    Returns:
        How far `second` got meanwhile, and the result of each.
    """
    with Meeting() as meeting:
        meeting.store.update({A: b'0', B: b'0'})
        connector = other = LocalConnector(
            meeting.store,
            include_data_in_config=True,
            lock=make_lock(lock_factory=meeting.make_lock),
        )
        if second_connector:
            other = LocalConnector(meeting.store, include_data_in_config=True)
        return meeting.run(lambda: first(connector), lambda: second(other))


def in_parallel(rounds: int, *works: Callable[[int], None]) -> None:
    """Do each work so many times in a thread of its own, all at once.

    Args:
        rounds: How often to call each work, with 0, 1, 2, ...
        works: What each thread does.
    """
    start = threading.Barrier(len(works))

    def repeat(work: Callable[[int], None]) -> None:
        start.wait(PATIENCE)
        for i in range(rounds):
            work(i)

    with ThreadPoolExecutor(len(works)) as pool:
        for future in [pool.submit(repeat, work) for work in works]:
            future.result()


def check_readers_share(make_lock: LockMaker) -> None:
    """Every two reads are inside the dict at once."""
    for first, second in itertools.product(READS, repeat=2):
        how_far, _, _ = meet(make_lock, READS[first], READS[second])
        assert how_far == 'inside', f'{second} during {first}: {how_far}'


def check_readers_share_after_writes(make_lock: LockMaker) -> None:
    """Many reads are inside the dict at once, again after each write."""
    store = SteppingDict()
    connector = LocalConnector(
        store,
        lock=make_lock(lock_factory=threading.Lock),
    )
    count = 5
    inside = threading.Barrier(count)

    def read(_: int) -> None:
        connector.get(A)

    for _ in range(3):
        connector.put_batch([b'0', b'0'])
        connector.set(A, b'0')
        store.hook = lambda: inside.wait(PATIENCE)
        in_parallel(3, *[read] * count)
        store.hook = lambda: None


def check_queued_readers_share(make_lock: LockMaker) -> None:
    """Reads that waited for a write are inside the dict at once."""
    count = 3
    blocked = threading.Semaphore(0)
    inside = threading.Barrier(count)

    def hook() -> None:
        if threading.current_thread() is threading.main_thread():
            reads.extend(pool.submit(connector.get, A) for _ in range(count))
            for _ in range(count):
                assert blocked.acquire(timeout=PATIENCE)
        else:
            inside.wait(PATIENCE)

    store = SteppingDict()
    reads: list[Future[bytes | None]] = []
    with (
        instrumented_locks(blocked.release),
        ThreadPoolExecutor(count) as pool,
    ):
        connector = LocalConnector(
            store,
            lock=make_lock(
                lock_factory=lambda: ReportingLock(
                    threading.Lock(),
                    blocked.release,
                ),
            ),
        )
        store.hook = hook
        connector.set(A, b'1')
        assert [read.result() for read in reads] == [b'1'] * count


def check_writers_exclude(make_lock: LockMaker) -> None:
    """No operation is inside the dict beside one that writes."""
    for first, second in itertools.product(OPERATIONS, repeat=2):
        if first in READS and second in READS:
            continue
        for second_connector in (False, True):
            how_far, _, _ = meet(
                make_lock,
                OPERATIONS[first],
                OPERATIONS[second],
                second_connector=second_connector,
            )
            assert how_far == 'blocked', f'{second} during {first}: {how_far}'


def check_put_batch_is_never_seen_in_part(make_lock: LockMaker) -> None:
    """Who looks in the middle of a put_batch sees nothing or all of it."""
    count = 3
    objs = [b'%d' % i for i in range(count)]
    for observe in (
        len,
        lambda connector: len(connector.config()['store_dict']),
    ):
        _, keys, seen = meet(
            make_lock,
            lambda connector: connector.put_batch(objs),
            observe,
        )
        assert seen in (2, 2 + count), f'saw {seen - 2} of {count} objects'
        assert len(keys) == count


def check_get_batch_sees_one_moment(make_lock: LockMaker) -> None:
    """Who reads while others write sees no later write without an earlier."""

    def write(connector: LocalConnector) -> None:
        connector.set(A, b'1')
        connector.set(B, b'1')

    for read in (
        lambda connector: connector.get_batch([A, B]),
        lambda connector: list(connector.config()['store_dict'].values()),
    ):
        _, seen, _ = meet(make_lock, read, write)
        assert seen in ([b'0', b'0'], [b'1', b'0'], [b'1', b'1']), (
            f'saw a = {seen[0]!r} from before the write of b = {seen[1]!r}'
        )


def check_snapshot_is_of_one_moment(make_lock: LockMaker) -> None:
    """A snapshot holds what one moment held while others set and evict."""

    def set_and_evict(connector: LocalConnector) -> None:
        connector.set(NEW, b'1')
        connector.evict(B)

    _, snapshot, _ = meet(
        make_lock,
        lambda connector: dict(connector.config()['store_dict']),
        set_and_evict,
    )
    assert snapshot in (
        {A: b'0', B: b'0'},
        {A: b'0', B: b'0', NEW: b'1'},
        {A: b'0', NEW: b'1'},
    )


def check_batches_under_load(
    make_lock: LockMaker,
    store: dict[LocalKey, bytes] | None = None,
    rounds: int = 50,
) -> None:
    """Threads that write batches, and threads that try to see them in part.

    Args:
        make_lock: Makes the lock.
        store: Dict for the connector. If not specified, one that lets other
            threads run at every step.
        rounds: How often each thread writes or looks.
    """
    count = 4
    if store is None:
        store = SteppingDict(hook=lambda: time.sleep(0))
    connector = LocalConnector(
        store,
        include_data_in_config=True,
        lock=make_lock(),
    )
    connector.set(A, b'')
    connector.set(B, b'')

    def write_batches(i: int) -> None:
        connector.put_batch([b'%d' % i] * count)

    def write_in_order(i: int) -> None:
        connector.set(A, b'%06d' % i)
        connector.set(B, b'%06d' % i)

    def watch_length(_: int) -> None:
        seen = len(connector) - 2
        assert seen % count == 0, f'saw {seen} objects'

    def watch_snapshot(_: int) -> None:
        seen = len(connector.config()['store_dict']) - 2
        assert seen % count == 0, f'saw {seen} objects'

    def watch_order(_: int) -> None:
        a, b = connector.get_batch([A, B])
        assert a is not None
        assert b is not None
        assert a >= b, f'saw a = {a!r} with b = {b!r}'

    in_parallel(
        rounds,
        write_batches,
        write_in_order,
        watch_length,
        watch_snapshot,
        watch_order,
    )
    assert len(connector) == 2 + count * rounds


CHECKS: dict[str, Check] = {
    name.removeprefix('check_'): check
    for name, check in list(globals().items())
    if name.startswith('check_')
}

# Those that hold without a lock, and fail with one that is not shared.
SHARING = {
    'readers_share',
    'readers_share_after_writes',
    'queued_readers_share',
}
