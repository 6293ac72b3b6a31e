"""The workloads: what is measured, and how."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
import timeit
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from functools import cache
from functools import partial
from importlib import import_module
from typing import Any
from typing import NamedTuple

from benchmarks.peers import Peer
from proxystore_local import LocalKey

# Seconds after which threads that did not all start give up.
PATIENCE = 60
# Threads take turns this often, so that torn states are not rare.
SWITCH = 1e-6

KEYS = [LocalKey(str(uuid.UUID(int=n, version=4))) for n in range(1024)]
VALUE = bytes(100)
OBJECT = list(range(100))
BATCH = 1000


class Effort(NamedTuple):
    """How much work goes into each measurement.

    Attributes:
        calls: Calls to time at a stretch. Also bounds what puts store.
        best_of: Such stretches in one process, of which the best counts.
        processes: Processes in which to do everything.
        seconds: Duration of a run of threads. Waits and Stores take four times
            that: one thread among nine has to wait for its turn of the GIL.
        batches: Batches of the torn workload.
    """

    calls: int = 5_000
    best_of: int = 3
    processes: int = 10
    seconds: float = 0.06
    batches: int = 50


QUICK = Effort(calls=1_000, best_of=2, processes=2, seconds=0.01, batches=10)

# Names of numbers, and what finds them out for a peer.
Case = tuple[Sequence[str], Callable[[Peer], Sequence[float]]]


class Workload(NamedTuple):
    """Cases, with the unit of their numbers and the package they need."""

    cases: Callable[[Effort], Iterator[Case]]
    unit: str
    needs: str = ''


def price(effort: Effort) -> Iterator[Case]:
    """A call of one thread, nobody else."""
    for name, statement in (
        ('get', 'connector.get(key)'),
        ('get missing', 'connector.get(missing)'),
        ('exists', 'connector.exists(key)'),
        ('set', 'connector.set(key, value)'),
        ('put', 'connector.put(value)'),
    ):
        yield [name], partial(_nanoseconds, statement, effort)
    evict = 'for k in keys: connector.evict(k)'
    yield ['evict'], partial(_nanoseconds, evict, effort, batch=BATCH)


def batches(effort: Effort) -> Iterator[Case]:
    """An object of a batch, of one thread."""
    for size in (1, 10, BATCH, 100_000):
        for name, values in ('get_batch', 'keys'), ('put_batch', 'values'):
            statement = f'connector.{name}({values})'
            run = partial(_nanoseconds, statement, effort, batch=size)
            yield [f'{name} of {size:,}'], run


def _nanoseconds(
    statement: str, effort: Effort, peer: Peer, *, batch: int = 0
) -> tuple[float]:
    """Time a call, or what a batch takes for each of its objects."""
    keys = [KEYS[n % BATCH] for n in range(batch or BATCH)]
    # Nothing can be evicted twice.
    once = statement.startswith('for')
    calls = 1 if once else max(1, effort.calls // (batch or 1))
    timer = timeit.Timer(
        statement,
        # Before each stretch and not timed, so that evict finds its keys.
        'for k in set(keys): connector.set(k, value)',
        globals={
            'connector': peer.make(),
            'key': KEYS[0],
            'keys': keys,
            'missing': KEYS[-1],
            'value': VALUE,
            'values': [VALUE] * len(keys),
        },
    )
    # One more, to warm up.
    _, *times = timer.repeat(1 + effort.best_of, calls)
    return (min(times) / calls / (batch or 1) * 1e9,)


def throughput(effort: Effort) -> Iterator[Case]:
    """Threads that get and set at random and never pause, all together."""

    def run(threads: int, percent: int, peer: Peer) -> tuple[float]:
        walk = partial(_walk, _filled(peer))
        paths = [_path(thread, percent) for thread in range(threads)]
        return (_rate([(path, walk) for path in paths], effort.seconds),)

    for threads, percent in itertools.product((1, 8, 32), (0, 10, 50, 100)):
        some = f'{threads} thread{"s" * (threads > 1)}'
        yield [f'{some}, {percent} % writes'], partial(run, threads, percent)


@cache
def _path(seed: int, percent: int) -> list[list[tuple[bool, Any]]]:
    """Get chunks of random operations: whether to write, and which key."""
    rng = random.Random(seed)
    return [
        [(rng.random() * 100 < percent, rng.choice(KEYS)) for _ in range(100)]
        for _ in range(40)
    ]


def _walk(connector: Any, chunk: list[tuple[bool, Any]]) -> int:
    """Get and set along a part of a path."""
    value = VALUE
    for write, key in chunk:
        if write:
            connector.set(key, value)
        else:
            connector.get(key)
    return len(chunk)


def waits(effort: Effort) -> Iterator[Case]:
    """Readers + writers that never pause, each call timed."""

    def run(readers: int, writers: int, peer: Peer) -> list[float]:
        connector = _filled(peer)
        reads: list[list[int]] = [[] for _ in range(readers)]
        writes: list[list[int]] = [[] for _ in range(writers)]
        read = [partial(_time, times, connector.get, ()) for times in reads]
        write = [
            partial(_time, times, connector.set, (VALUE,)) for times in writes
        ]
        _rate([(KEYS, do) for do in read + write], 4 * effort.seconds)
        found = []
        for group in (reads, writes):
            times = sorted(itertools.chain(*group))
            last = len(times) - 1
            found += [times[int(part * last)] for part in (0.5, 0.99, 1)]
        return [nanoseconds / 1000 for nanoseconds in found]

    for readers, writers in ((8, 1), (8, 8)):
        names = [
            f'{readers} + {writers}: {who} {part}'
            for who in ('read', 'write')
            for part in ('median', 'p99', 'longest')
        ]
        yield names, partial(run, readers, writers)


def _time(
    times: list[int], operation: Callable[..., Any], value: Any, key: Any
) -> int:
    """Do one operation, and note how long it took."""
    before = time.perf_counter_ns()
    operation(key, *value)
    times.append(time.perf_counter_ns() - before)
    return 1


def store(effort: Effort) -> Iterator[Case]:
    """ProxyStore's Store without a cache: nine gets, a put and an evict.

    The objects are lists of 100 numbers. To deserialize one computes, and also
    waits for 1 ms where that is said.
    """

    def run(threads: int, stores: int, load: Any, peer: Peer) -> tuple[float]:
        new = import_module('proxystore.store').Store
        options = {'cache_size': 0, 'deserializer': load}
        connector = peer.make()
        made = [new(f'{n}', connector, **options) for n in range(stores)]
        keys = [made[0].put(OBJECT) for _ in range(64)]
        chunks = [keys[start : start + 9] for start in range(len(keys) - 9)]
        users = made * (threads // stores)
        tasks = [(chunks, partial(_use, user)) for user in users]
        return (_rate(tasks, 4 * effort.seconds),)

    for load, wait_too in ((None, ''), (_wait_and_load, ', 1 ms')):
        for name, threads, stores in (
            ('1 thread, 1 Store', 1, 1),
            ('8 threads, 1 Store', 8, 1),
            ('8 threads, 8 Stores', 8, 8),
        ):
            yield [name + wait_too], partial(run, threads, stores, load)


def _wait_and_load(data: bytes) -> Any:
    time.sleep(0.001)
    return import_module('proxystore.serialize').deserialize(data)


def _use(used: Any, keys: Sequence[Any]) -> int:
    """Get some objects, put one and evict it."""
    for key in keys:
        used.get(key)
    used.evict(used.put(OBJECT))
    return len(keys) + 1


def torn(effort: Effort) -> Iterator[Case]:
    """Readers that count the objects while another thread puts batches.

    They must see none of a batch or all of it.
    """

    def run(peer: Peer) -> tuple[float]:
        # A new connector for each batch: it is empty or holds the batch.
        latest = [peer.make()]
        stop = threading.Event()

        def read() -> list[int]:
            seen = [_count(latest[0])]
            while not stop.is_set():
                seen.append(_count(latest[0]))
            return seen

        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH)
        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read) for _ in range(4)]
            try:
                for _ in range(effort.batches):
                    latest[0] = peer.make()
                    latest[0].put_batch([VALUE] * BATCH)
            finally:
                stop.set()
                sys.setswitchinterval(interval)
        seen = [number for reader in readers for number in reader.result()]
        states = sum(number not in {0, BATCH} for number in seen)
        return (states / len(seen) * 100_000,)

    yield ['torn states'], run


def _count(connector: Any) -> int:
    """Count the objects of any peer's connector."""
    try:
        return len(connector)
    except TypeError:
        return len(connector.config()['store_dict'])


WORKLOADS = {
    'price': Workload(price, 'ns'),
    'batches': Workload(batches, 'ns'),
    'throughput': Workload(throughput, 'k/s'),
    'waits': Workload(waits, 'us'),
    'store': Workload(store, 'k/s', needs='proxystore'),
    'torn': Workload(torn, 'in 100,000'),
}


def _filled(peer: Peer) -> Any:
    """Make a connector that holds a value for each of KEYS."""
    connector = peer.make()
    for key in KEYS:
        connector.set(key, VALUE)
    return connector


def _rate(
    tasks: Sequence[tuple[Sequence[Any], Callable[[Any], int]]], seconds: float
) -> float:
    """Get how many thousand operations a second threads do together.

    A task is for a thread: chunks of work, and what does a chunk and returns
    the number of its operations. A thread does at least one chunk.
    """
    ready = threading.Barrier(len(tasks) + 1)
    stop = threading.Event()

    def keep_on(
        chunks: Sequence[Any], do: Callable[[Any], int]
    ) -> tuple[int, int, int]:
        operations = 0
        ready.wait(PATIENCE)
        begin = time.perf_counter_ns()
        for chunk in itertools.cycle(chunks):
            operations += do(chunk)
            if stop.is_set():
                break
        return begin, time.perf_counter_ns(), operations

    with ThreadPoolExecutor(len(tasks)) as pool:
        futures = [pool.submit(keep_on, *task) for task in tasks]
        try:
            ready.wait(PATIENCE)
            wait(futures, seconds, FIRST_EXCEPTION)
        finally:
            stop.set()
    # The times are the workers' own: where threads compete for the
    # interpreter, the main thread wakes up late.
    begins, ends, operations = zip(*(future.result() for future in futures))
    return float(sum(operations) / (max(ends) - min(begins)) * 1e6)
