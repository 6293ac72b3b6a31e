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
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import Any
from typing import NamedTuple

from proxystore_local import LocalKey

KEYS = [LocalKey(str(uuid.UUID(int=n, version=4))) for n in range(1024)]
VALUE = bytes(100)
OBJECT = list(range(100))
BATCH = 1000


class Effort(NamedTuple):
    """How much work goes into each measurement."""

    calls: int = 5_000  # Timed at a stretch. Also bounds what puts store.
    best_of: int = 3  # Such stretches in one process.
    processes: int = 10  # In which to do everything.
    # Of a run of threads. Waits and Stores take four times that: one thread
    # among nine has to wait for its turn of the GIL.
    seconds: float = 0.06
    batches: int = 50  # Of the torn workload.


QUICK = Effort(calls=1_000, best_of=2, processes=2, seconds=0.01, batches=10)

Make = Callable[[], Any]
# A workload measures connectors, and yields the name and value of each number.
# Peers take turns: others are measured before it is asked for the next.
Numbers = Iterator[tuple[str, float]]


def price(effort: Effort, make: Make) -> Numbers:
    """A call of one thread, nobody else."""
    for name, statement in (
        ('get', 'connector.get(key)'),
        ('get missing', 'connector.get(missing)'),
        ('exists', 'connector.exists(key)'),
        ('set', 'connector.set(key, value)'),
        ('put', 'connector.put(value)'),
    ):
        yield name, _nanoseconds(statement, effort.calls, effort, make)
    # Once only, as nothing can be evicted twice.
    evict = 'for k in keys: connector.evict(k)'
    yield 'evict', _nanoseconds(evict, 1, effort, make, size=BATCH)


def batches(effort: Effort, make: Make) -> Numbers:
    """An object of a batch, of one thread."""
    for size in (1, 10, BATCH):
        calls = max(1, effort.calls // size)
        for name, values in ('get_batch', 'keys'), ('put_batch', 'values'):
            statement = f'connector.{name}({values})'
            cost = _nanoseconds(statement, calls, effort, make, size=size)
            yield f'{name} of {size:,}', cost


def _nanoseconds(
    statement: str, calls: int, effort: Effort, make: Make, *, size: int = 1
) -> float:
    """Time a call, or what a batch takes for each of its objects."""
    timer = timeit.Timer(
        statement,
        # Before each stretch and not timed, so that evict finds its keys.
        'fill(connector)',
        globals={
            'connector': make(),
            'fill': _fill,
            'key': KEYS[0],
            'keys': [KEYS[n % BATCH] for n in range(size)],
            'missing': LocalKey('missing'),
            'value': VALUE,
            'values': [VALUE] * size,
        },
    )
    # One more, to warm up.
    _, *times = timer.repeat(1 + effort.best_of, calls)
    return min(times) / calls / size * 1e9


def throughput(effort: Effort, make: Make) -> Numbers:
    """Threads that get and set at random and never pause, all together."""
    for threads, percent in itertools.product((1, 8, 32), (0, 10, 50, 100)):
        connector = make()
        _fill(connector)
        paths = [_path(thread, percent) for thread in range(threads)]
        walks = [_walk(connector, path) for path in paths]
        some = f'{threads} thread{"s" * (threads > 1)}'
        yield f'{some}, {percent} % writes', _rate(walks, effort.seconds)


@cache
def _path(seed: int, percent: int) -> list[list[tuple[bool, Any]]]:
    """Get chunks of random operations: whether to write, and which key."""
    rng = random.Random(seed)
    return [
        [(rng.random() * 100 < percent, rng.choice(KEYS)) for _ in range(100)]
        for _ in range(40)
    ]


def _walk(connector: Any, path: list[list[tuple[bool, Any]]]) -> Iterator[int]:
    """Get and set along a path, over and over."""
    value = VALUE
    for chunk in itertools.cycle(path):
        for write, key in chunk:
            if write:
                connector.set(key, value)
            else:
                connector.get(key)
        yield len(chunk)


def waits(effort: Effort, make: Make) -> Numbers:
    """Readers + writers that never pause, each call timed."""
    yield from _wait_times(8, 1, effort, make)
    yield from _wait_times(8, 8, effort, make)


def _wait_times(
    readers: int, writers: int, effort: Effort, make: Make
) -> list[tuple[str, float]]:
    # Not a generator, which would keep all times while other peers run.
    connector = make()
    _fill(connector)
    reads: list[list[int]] = [[] for _ in range(readers)]
    writes: list[list[int]] = [[] for _ in range(writers)]
    tasks = [_time(times, connector.get) for times in reads]
    tasks += [_time(times, connector.set, VALUE) for times in writes]
    _rate(tasks, 4 * effort.seconds)
    found = []
    for who, lists in ('read', reads), ('write', writes):
        times = sorted(itertools.chain(*lists))
        last = len(times) - 1
        for part, share in ('median', 0.5), ('p99', 0.99), ('longest', 1):
            name = f'{readers} + {writers}: {who} {part}'
            found.append((name, times[int(share * last)] / 1000))
    return found


def _time(
    times: list[int], operation: Callable[..., Any], *value: Any
) -> Iterator[int]:
    """Do an operation with each key, and note how long each call took."""
    for key in itertools.cycle(KEYS):
        before = time.perf_counter_ns()
        operation(key, *value)
        times.append(time.perf_counter_ns() - before)
        yield 1


def store(effort: Effort, make: Make) -> Numbers:
    """ProxyStore's Store without a cache: nine gets, a put and an evict.

    The objects are lists of 100 numbers. To deserialize one computes, and also
    waits for 1 ms where that is said.
    """
    new = import_module('proxystore.store').Store
    for load, wait_too in (None, ''), (_wait_and_load, ', 1 ms'):
        options = {'cache_size': 0, 'deserializer': load}
        for name, threads, stores in (
            ('1 thread, 1 Store', 1, 1),
            ('8 threads, 1 Store', 8, 1),
            ('8 threads, 8 Stores', 8, 8),
        ):
            connector = make()
            made = [new(f'{n}', connector, **options) for n in range(stores)]
            keys = [made[0].put(OBJECT) for _ in range(64)]
            tasks = [_use(used, keys) for used in made * (threads // stores)]
            yield name + wait_too, _rate(tasks, 4 * effort.seconds)


def _wait_and_load(data: bytes) -> Any:
    time.sleep(0.001)
    return import_module('proxystore.serialize').deserialize(data)


def _use(used: Any, keys: Sequence[Any]) -> Iterator[int]:
    """Get nine objects, put one and evict it, over and over."""
    for start in itertools.cycle(range(len(keys) - 9)):
        for key in keys[start : start + 9]:
            used.get(key)
        used.evict(used.put(OBJECT))
        yield 10


def torn(effort: Effort, make: Make) -> Numbers:
    """Readers that count the objects while another thread puts batches.

    They must see none of a batch or all of it.
    """
    # A new connector for each batch: it is empty or holds the batch.
    latest = [make()]
    stop = threading.Event()

    def read() -> list[int]:
        seen = []
        over = False
        while not over:  # The last look is at the last connector.
            over = stop.is_set()
            seen.append(_count(latest[0]))
        return seen

    interval = sys.getswitchinterval()
    # Threads take turns that often, so that torn states are not rare.
    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for _ in range(effort.batches):
                latest[0] = make()
                latest[0].put_batch([VALUE] * BATCH)
        finally:
            stop.set()
            sys.setswitchinterval(interval)
    seen = [number for reader in readers for number in reader.result()]
    states = sum(number not in {0, BATCH} for number in seen)
    yield 'torn states', states / len(seen) * 100_000


def _count(connector: Any) -> int:
    """Count the objects of any peer's connector."""
    try:
        return len(connector)
    except TypeError:
        return len(connector.config()['store_dict'])


class Workload(NamedTuple):
    """What measures a connector, the unit, and the package it needs."""

    measure: Callable[[Effort, Make], Numbers]
    unit: str
    needs: str = 'proxystore_local'


WORKLOADS = {
    'price': Workload(price, 'ns'),
    'batches': Workload(batches, 'ns'),
    'throughput': Workload(throughput, 'k/s'),
    'waits': Workload(waits, 'us'),
    'store': Workload(store, 'k/s', needs='proxystore'),
    'torn': Workload(torn, 'in 100,000'),
}


def _fill(connector: Any) -> None:
    for key in KEYS:
        connector.set(key, VALUE)


def _rate(tasks: Sequence[Iterator[int]], seconds: float) -> float:
    """Get how many thousand operations a second threads do together.

    Each step of a task yields the number of its operations. A thread does one
    step at least.
    """
    # With a timeout, if not all threads start.
    ready = threading.Barrier(len(tasks), timeout=60)
    begins: list[int] = []

    def keep_on(task: Iterator[int]) -> tuple[int, int]:
        operations = 0
        ready.wait()
        begins.append(time.perf_counter_ns())
        # Nobody tells a thread to stop, as who does might wait for long until
        # the others let it have the interpreter.
        deadline = begins[0] + seconds * 1e9
        for done in task:
            operations += done
            if time.perf_counter_ns() > deadline:
                break
        return operations, time.perf_counter_ns()

    with ThreadPoolExecutor(len(tasks)) as pool:
        operations, ends = zip(*pool.map(keep_on, tasks))
    return float(sum(operations) / (max(ends) - begins[0]) * 1e6)
