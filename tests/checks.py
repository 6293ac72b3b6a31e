"""What must hold between threads, as checks that any lock can be put through.

Each takes a function that makes a lock from a lock factory, and raises an
AssertionError if that lock lets threads see what they must not. The subject's
own test file runs a check for every lock that we accept; test_without_lock.py
shows that it fails without one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import sleep
from typing import Any
from typing import TypeAlias

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.rwlocked import RWLock
from tests.harness import hooked
from tests.harness import Meeting
from tests.harness import minted
from tests.harness import once
from tests.harness import PATIENCE
from tests.harness import reported_waits
from tests.harness import ReportingLock

LockMaker: TypeAlias = Callable[..., RWLock | None]
Check: TypeAlias = Callable[[LockMaker], None]
Hook: TypeAlias = Callable[[], object]

A, B, NEW, NEWER = map(LocalKey, ['a', 'b', 'new', 'newer'])

Operation: TypeAlias = Callable[[LocalConnector], Any]
StoppedOperation: TypeAlias = Callable[[LocalConnector, Hook], Any]

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


def _put(connector: LocalConnector, hook: Hook) -> Any:
    with minted([hooked(A, hook)]):
        return connector.put(b'1')


def _put_batch(connector: LocalConnector, hook: Hook) -> Any:
    with minted([NEW, hooked(B, hook), NEWER]):
        return connector.put_batch([b'1', b'1', b'1'])


# The same, stopped half way by a hook. Of those that are on several keys one
# is done then, and there is one more to come.
STOPPED_READS: dict[str, StoppedOperation] = {
    'get': lambda connector, hook: connector.get(hooked(A, hook)),
    'exists': lambda connector, hook: connector.exists(hooked(A, hook)),
    'get_batch': lambda connector, hook: connector.get_batch(
        [A, hooked(B, hook), A],
    ),
}
STOPPED_WRITES: dict[str, StoppedOperation] = {
    'put': _put,
    'put_batch': _put_batch,
    'set': lambda connector, hook: connector.set(hooked(A, hook), b'1'),
    'evict': lambda connector, hook: connector.evict(hooked(A, hook)),
}
STOPPED = STOPPED_READS | STOPPED_WRITES


def meet(
    make_lock: LockMaker,
    first: StoppedOperation,
    second: Operation,
    *,
    second_connector: bool = False,
) -> tuple[str, Any, Any]:
    """Run an operation on a connector in the middle of another.

    Args:
        make_lock: Makes the lock.
        first: Operation that is stopped half way.
        second: Operation that another thread runs meanwhile.
        second_connector: Run it on a second connector on the same dict.

    Returns:
        How far `second` got meanwhile, and the result of each.
    """
    meeting = Meeting()
    store = {A: b'0', B: b'0'}
    connector = other = LocalConnector(
        store,
        include_data_in_config=True,
        lock=make_lock(lock_factory=meeting.make_lock),
    )
    if second_connector:
        other = LocalConnector(store, include_data_in_config=True)
    return meeting.run(
        lambda hook: first(connector, hook),
        lambda: second(other),
    )


@contextmanager
def held(
    connector: LocalConnector, operation: str
) -> Iterator[Callable[..., None]]:
    """Keep another thread in the middle of an operation.

    Yields:
        Function that lets it leave.
    """
    inside, left = threading.Event(), threading.Event()

    def stay() -> None:
        inside.set()
        assert left.wait(PATIENCE)

    def leave(_: float = 0) -> None:
        left.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()

    thread = threading.Thread(
        target=STOPPED[operation],
        args=(connector, once(stay)),
        daemon=True,
    )
    thread.start()
    assert inside.wait(PATIENCE)
    yield leave
    leave()


def in_parallel(rounds: int, *works: Callable[[int], None]) -> None:
    """Do each work so many times in a thread of its own, in step.

    Args:
        rounds: How often to call each work, with 0, 1, 2, ...
        works: What each thread does.
    """
    start = threading.Barrier(len(works))

    def repeat(work: Callable[[int], None]) -> None:
        try:
            for i in range(rounds):
                start.wait(PATIENCE)
                work(i)
        except BaseException:
            start.abort()
            raise

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(repeat, work) for work in works]
    errors = [error for future in futures if (error := future.exception())]
    # The others found that one had given up.
    for error in sorted(errors, key=is_broken_barrier):
        raise error


def is_broken_barrier(error: BaseException) -> bool:
    return isinstance(error, threading.BrokenBarrierError)


def check_readers_share(make_lock: LockMaker) -> None:
    """Every two reads are inside the dict at once."""
    for first, second in itertools.product(STOPPED_READS, READS):
        how_far, _, _ = meet(make_lock, STOPPED_READS[first], READS[second])
        assert how_far == 'done', f'{second} during {first}: {how_far}'


def check_readers_share_after_writes(make_lock: LockMaker) -> None:
    """Many reads are inside the dict at once, again after each write."""
    connector = LocalConnector(lock=make_lock(lock_factory=threading.Lock))
    count = 5
    inside = threading.Barrier(count)

    def read(_: int) -> None:
        connector.get(hooked(A, once(lambda: inside.wait(PATIENCE))))

    for _ in range(3):
        connector.put_batch([b'0', b'0'])
        connector.set(A, b'0')
        in_parallel(3, *[read] * count)


def check_queued_readers_share(make_lock: LockMaker) -> None:
    """Reads that waited for a write are inside the dict at once."""
    count = 3
    blocked = threading.Semaphore(0)
    left = threading.Event()
    inside = threading.Barrier(count)

    def read() -> bytes | None:
        key = hooked(A, once(lambda: inside.wait(PATIENCE)))
        return connector.get(key)

    def queue_readers() -> None:
        reads.extend(pool.submit(read) for _ in range(count))
        for _ in range(count):
            assert blocked.acquire(timeout=PATIENCE)

    reads: list[Any] = []
    with (
        reported_waits(blocked.release, left),
        ThreadPoolExecutor(count) as pool,
    ):
        connector = LocalConnector(
            {A: b'0'},
            lock=make_lock(
                lock_factory=lambda: ReportingLock(
                    threading.Lock(),
                    blocked.release,
                ),
            ),
        )
        connector.set(hooked(A, once(queue_readers)), b'1')
        left.set()
        assert [read.result() for read in reads] == [b'1'] * count


def check_writers_exclude(make_lock: LockMaker) -> None:
    """No operation is inside the dict beside one that writes."""
    for first, second in itertools.product(STOPPED, OPERATIONS):
        if first in READS and second in READS:
            continue
        for second_connector in (False, True):
            how_far, _, _ = meet(
                make_lock,
                STOPPED[first],
                OPERATIONS[second],
                second_connector=second_connector,
            )
            assert how_far == 'blocked', f'{second} during {first}: {how_far}'


def check_put_batch_is_never_seen_in_part(make_lock: LockMaker) -> None:
    """Who looks in the middle of a put_batch sees nothing or all of it."""
    for observe in (
        len,
        lambda connector: len(connector.config()['store_dict']),
        lambda connector: 4 - connector.get_batch([NEW, NEWER]).count(None),
    ):
        _, keys, seen = meet(make_lock, _put_batch, observe)
        assert seen in (2, 4), f'saw {seen - 2} of 2 new objects'
        assert len(keys) == 3


def check_get_batch_sees_one_moment(make_lock: LockMaker) -> None:
    """Who reads while others write sees no later write without an earlier."""

    def write(connector: LocalConnector) -> None:
        connector.set(A, b'1')
        connector.set(B, b'1')

    _, seen, _ = meet(make_lock, STOPPED['get_batch'], write)
    assert seen in ([b'0'] * 3, [b'1', b'0', b'1'], [b'1'] * 3), (
        f'saw a = {seen[0]!r} and then a = {seen[2]!r}, b = {seen[1]!r}'
    )


def check_batches_under_load(
    make_lock: LockMaker,
    rounds: int = 100,
) -> None:
    """Threads that write batches, and threads that try to see them in part.

    The batches are always of the same keys, and threads offer their turn
    between two of these.

    Args:
        make_lock: Makes the lock.
        rounds: How often each thread writes or looks.
    """
    keys = [LocalKey(str(i)) for i in range(4)]
    yielding = [hooked(key, lambda: sleep(0)) for key in keys]
    connector = LocalConnector(
        dict.fromkeys(keys, b''),
        include_data_in_config=True,
        lock=make_lock(),
    )

    def write_batches(i: int) -> None:
        connector.put_batch([b'%d' % i] * len(keys))

    def watch_batch(_: int) -> None:
        seen = connector.get_batch(yielding)
        assert len({*seen}) == 1, f'saw {seen}'

    def watch_snapshot(_: int) -> None:
        seen = connector.config()['store_dict'].values()
        assert len({*seen}) == 1, f'saw {seen}'

    with minted(yielding):
        in_parallel(
            rounds,
            write_batches,
            write_batches,
            watch_batch,
            watch_snapshot,
        )
    assert len(connector) == len(keys)


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
