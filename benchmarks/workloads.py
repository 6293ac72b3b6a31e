"""What is measured: prices, throughput, waits, growth, sizes, memory."""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib.util
import itertools
import random
import signal
import statistics
import threading
import time
import timeit
import tracemalloc
import uuid
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from collections.abc import Sized
from concurrent.futures import FIRST_EXCEPTION
from concurrent.futures import Future
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any
from typing import Literal
from typing import TypeAlias
from typing import TypeVar

from benchmarks.peers import Connector
from benchmarks.peers import find_peers
from benchmarks.peers import Peer
from proxystore_local import LocalKey

ArgumentT = TypeVar('ArgumentT')
ResultT = TypeVar('ResultT')

# Seconds after which threads that did not all start give up.
PATIENCE = 60

KEYS = [LocalKey(str(uuid.UUID(int=n, version=4))) for n in range(1024)]
VALUE = bytes(100)
BATCH = 1000
OBJECT = list(range(100))

# What the workloads vary.
THREADS = (1, 2, 4, 8, 16, 32)
WRITES = (0, 1, 10, 50, 100)
MIXES = ((8, 1), (8, 8), (1, 8))
ALIVE = (0, 1, 2, 4, 8, 16, 32)
BATCHES = (1, 10, 100, 1_000, 10_000, 100_000)
SIZES = {
    '1 B': 1,
    '1 KiB': 2**10,
    '1 MiB': 2**20,
    '32 MiB': 2**25,
    '1 GiB': 2**30,
}
STORE_THREADS = (1, 2, 4, 8)

LEN = 'len(connector)'
SET = 'connector.set(key, value)'


@dataclass(frozen=True)
class Effort:
    """How much work goes into each measurement.

    Attributes:
        calls: Calls to time at a stretch. Also bounds what puts store.
        best_of: Such stretches in one process, of which the best counts.
        processes: Processes in which to do that, of which the median counts.
        rounds: Runs of throughput, waits and memory, each in a process of
            its own.
        seconds: Duration of a run of throughput. Waits take four times that.
        ended: Short-lived threads of the growth workload.
        objects: Objects of the memory workload.
    """

    calls: int
    best_of: int
    processes: int
    rounds: int
    seconds: float
    ended: int
    objects: int


FULL = Effort(
    calls=5_000,
    best_of=3,
    processes=12,
    rounds=3,
    seconds=0.25,
    ended=10_000,
    objects=10_000,
)
QUICK = Effort(
    calls=1_000,
    best_of=2,
    processes=2,
    rounds=1,
    seconds=0.02,
    ended=500,
    objects=1_000,
)


@dataclass(frozen=True)
class Column:
    """One number that a case finds out about a connector.

    Attributes:
        name: Head of the column.
        unit: Unit of the number.
        better: Which numbers are the good ones.
        combine: Makes one number of those of all rounds.
    """

    name: str
    unit: str
    better: Literal['lower', 'higher']
    combine: Callable[[Sequence[float]], float]


@dataclass(frozen=True, eq=False)
class Case:
    """Something to put a connector through.

    Attributes:
        workload: Workload that the case belongs to.
        table: Table that it is shown in.
        columns: Columns that it fills.
        rounds: Times to do it.
        run: Gets a new connector and returns a number for each column, or
            none if this connector cannot do it.
    """

    workload: str
    table: str
    columns: tuple[Column, ...]
    rounds: int
    run: Callable[[Connector], Sequence[float]]


@dataclass(frozen=True)
class Measurement:
    """One cell of a table: what came out for one peer.

    Attributes:
        workload: Workload of the case.
        table: Table of the case.
        column: Name of the column.
        peer: Name of the peer.
        value: Outcome of all rounds.
        unit: Unit of the value.
        better: Which values are the good ones.
        safe: If threads can share the peer, and its batches are atomic.
        rounds: Outcome of each round, which tells how noisy the value is.
    """

    workload: str
    table: str
    column: str
    peer: str
    value: float
    unit: str
    better: Literal['lower', 'higher']
    safe: bool = True
    rounds: Sequence[float] = ()


def measure(
    effort: Effort,
    workloads: Sequence[str],
    progress: Callable[[int], object],
) -> list[Measurement]:
    """Put all peers through all cases.

    Each turn of a workload runs in a new process, so that what differs from
    process to process (the layout of memory, hashes of strings) is averaged
    out. The turns of a case lie far apart, so that a busy moment of the
    machine does not hit them all.

    Args:
        effort: How much work to put into it.
        workloads: Names of the workloads.
        progress: Called with the number of runs that were done.

    Returns:
        All that was measured.
    """
    peers, _ = find_peers()
    found: dict[tuple[str, int], list[list[Sequence[float]]]] = {}
    cases = {name: list(WORKLOADS[name](effort)) for name in workloads}
    turns = max(c.rounds for some in cases.values() for c in some)
    for turn, name in itertools.product(range(turns), workloads):
        due = [n for n, case in enumerate(cases[name]) if turn < case.rounds]
        # Ctrl-C is for the parent; the child ends with its case.
        with ProcessPoolExecutor(
            1,
            get_context('spawn'),
            signal.signal,
            (signal.SIGINT, signal.SIG_IGN),
        ) as pool:
            run = functools.partial(_run_case, effort, name, turn)
            for number, results in zip(due, pool.map(run, due)):
                found.setdefault((name, number), []).append(results)
                progress(len(peers))
    return [
        measurement
        for (name, number), results in found.items()
        for measurement in combine(cases[name][number], peers, results)
    ]


def _run_case(
    effort: Effort,
    workload: str,
    turn: int,
    number: int,
) -> list[Sequence[float]]:
    """Do a case once, in a process that gets no more than its number."""
    peers, _ = find_peers()
    case = list(WORKLOADS[workload](effort))[number]
    return take_turns(case, peers, turn + number)


def take_turns(
    case: Case,
    peers: Sequence[Peer],
    first: int,
) -> list[Sequence[float]]:
    """Put all peers through a case, one after the other.

    Args:
        case: What to measure.
        peers: What to measure it of.
        first: Number of the peer that is the first one, so that it is not
            always the same.

    Returns:
        The numbers of each peer, none if it cannot do it.
    """
    found: dict[int, Sequence[float]] = {}
    for step in range(len(peers)):
        place = (first + step) % len(peers)
        found[place] = case.run(peers[place].make())
    return [found[place] for place in range(len(peers))]


def combine(
    case: Case,
    peers: Sequence[Peer],
    rounds: Sequence[Sequence[Sequence[float]]],
) -> Iterator[Measurement]:
    """Make a measurement of the numbers of all rounds.

    Args:
        case: What was measured.
        peers: What it was measured of.
        rounds: What each round found out about each peer.

    Yields:
        A measurement for each column and peer that could do it.
    """
    for peer, numbers in zip(peers, zip(*rounds)):
        for column, values in zip(case.columns, zip(*numbers)):
            yield Measurement(
                case.workload,
                case.table,
                column.name,
                peer.name,
                column.combine(values),
                column.unit,
                column.better,
                peer.safe,
                values,
            )


def price(effort: Effort) -> Iterator[Case]:
    """Time single calls in a single thread, as `timeit` does.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each operation.
    """
    many, few = effort.calls, effort.calls // BATCH
    for name, statement, number, calls in (
        ('get', 'connector.get(key)', many, 1),
        ('get missing', 'connector.get(missing)', many, 1),
        ('exists', 'connector.exists(key)', many, 1),
        ('len', LEN, many, 1),
        ('set', SET, many, 1),
        ('put', 'connector.put(value)', many, 1),
        ('evict', 'for k in keys: connector.evict(k)', 1, BATCH),
        ('new_key', 'connector.new_key()', many, 1),
        ('get_batch/obj', 'connector.get_batch(keys)', few, BATCH),
        ('put_batch/obj', 'connector.put_batch(values)', few, BATCH),
    ):
        yield Case(
            'price',
            'one thread',
            (Column(name, 'ns', 'lower', statistics.median),),
            effort.processes,
            functools.partial(
                _price,
                statement,
                number,
                calls,
                effort.best_of,
            ),
        )


def _price(
    statement: str,
    number: int,
    calls: int,
    repeats: int,
    connector: Connector,
    value: bytes = VALUE,
    batch: int = BATCH,
) -> Sequence[float]:
    """Get the nanoseconds of one of the calls that a statement makes."""
    if statement == LEN and not isinstance(connector, Sized):
        return ()
    stored = itertools.islice(itertools.cycle(KEYS[:BATCH]), batch)
    timer = timeit.Timer(
        statement,
        # Before each stretch and not timed, so that evict finds its keys.
        'for k in set(keys): connector.set(k, value)',
        globals={
            'connector': connector,
            'key': KEYS[0],
            'keys': list(stored),
            'missing': KEYS[-1],
            'value': value,
            'values': [value] * batch,
        },
    )
    # One more, to warm up.
    _, *times = timer.repeat(1 + repeats, number)
    return (min(times) / number / calls * 1e9,)


# A worker gets a barrier to meet the others at and an event that says stop.
Worker: TypeAlias = Callable[[threading.Barrier, threading.Event], ResultT]


@contextlib.contextmanager
def _crew(
    workers: Sequence[Worker[ResultT]],
) -> Iterator[list[Future[ResultT]]]:
    """Run each worker in a thread of its own, until the context is left.

    The context is entered once all workers have met at the barrier. When it
    is left, all are told to stop and joined, and if one has failed, so does
    this.
    """
    ready = threading.Barrier(len(workers) + 1)
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, len(workers))) as pool:
        futures = [pool.submit(worker, ready, stop) for worker in workers]
        try:
            ready.wait(PATIENCE)
            yield futures
        finally:
            stop.set()
    for future in futures:
        future.result()


def _load(workers: Sequence[Worker[ResultT]], seconds: float) -> list[ResultT]:
    """Run workers side by side for a while, or until one fails."""
    with _crew(workers) as futures:
        wait(futures, seconds, FIRST_EXCEPTION)
    return [future.result() for future in futures]


@dataclass(frozen=True)
class _Stint:
    """What a worker did, and when by `perf_counter_ns`.

    The times are the worker's own: where threads compete for the interpreter
    the main thread wakes up late.
    """

    begin: int
    end: int
    operations: int
    waits: Sequence[int] = ()


def _rate(group: Sequence[_Stint], crew: Sequence[_Stint]) -> float:
    """Get how many thousand operations per second a part of a crew did."""
    begin = min(stint.begin for stint in crew)
    end = max(stint.end for stint in crew)
    return sum(stint.operations for stint in group) / (end - begin) * 1e6


def throughput(effort: Effort) -> Iterator[Case]:
    """Count what threads that read and write at random get done.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each number of threads and share of writes.
    """
    for threads, percent in itertools.product(THREADS, WRITES):
        yield Case(
            'throughput',
            of_threads(threads),
            (
                Column(
                    of_writes(percent),
                    'k/s',
                    'higher',
                    statistics.median,
                ),
            ),
            effort.rounds,
            functools.partial(_throughput, threads, percent, effort.seconds),
        )


def of_threads(threads: int) -> str:
    """Name a number of threads."""
    return f'{threads} thread{"s" * (threads > 1)}'


def of_writes(percent: int) -> str:
    """Name a share of writes."""
    return f'{percent} % writes'


def _throughput(
    threads: int,
    percent: int,
    seconds: float,
    connector: Connector,
) -> Sequence[float]:
    for key in KEYS:
        connector.set(key, VALUE)
    stints = _load(
        [
            functools.partial(
                _keep_on,
                _path(thread, percent),
                functools.partial(_walk, connector),
            )
            for thread in range(threads)
        ],
        seconds,
    )
    return (_rate(stints, stints),)


@functools.cache
def _path(seed: int, percent: int) -> list[list[tuple[bool, LocalKey]]]:
    """Get chunks of random operations: whether to write, and which key."""
    rng = random.Random(seed)
    return [
        [(rng.random() * 100 < percent, rng.choice(KEYS)) for _ in range(100)]
        for _ in range(40)
    ]


def _keep_on(
    chunks: Iterable[ArgumentT],
    do: Callable[[ArgumentT], int],
    ready: threading.Barrier,
    stop: threading.Event,
) -> _Stint:
    """Do chunk after chunk, round and round, and at least one of them."""
    operations = 0
    ready.wait(PATIENCE)
    begin = time.perf_counter_ns()
    for chunk in itertools.cycle(chunks):
        operations += do(chunk)
        if stop.is_set():
            break
    return _Stint(begin, time.perf_counter_ns(), operations)


def _walk(connector: Connector, chunk: list[tuple[bool, LocalKey]]) -> int:
    """Get and set along a part of a path."""
    for write, key in chunk:
        if write:
            connector.set(key, VALUE)
        else:
            connector.get(key)
    return len(chunk)


def waits(effort: Effort) -> Iterator[Case]:
    """Time each call while readers and writers never pause.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each mix of readers and writers.
    """
    columns = tuple(
        column
        for who in ('read', 'write')
        for column in (
            Column(f'{who}s', 'k/s', 'higher', statistics.median),
            Column(f'{who} p50', 'us', 'lower', statistics.median),
            Column(f'{who} p99', 'us', 'lower', statistics.median),
            Column(f'{who} p99.9', 'us', 'lower', statistics.median),
            Column(f'{who} max', 'us', 'lower', max),
        )
    )
    for readers, writers in MIXES:
        yield Case(
            'waits',
            of_mix(readers, writers),
            columns,
            effort.rounds,
            # One thread among nine has to wait for its turn of the GIL.
            functools.partial(_waits, readers, writers, 4 * effort.seconds),
        )


def of_mix(readers: int, writers: int) -> str:
    """Name a mix of readers and writers."""
    return f'readers + writers: {readers} + {writers}'


def _waits(
    readers: int,
    writers: int,
    seconds: float,
    connector: Connector,
) -> Sequence[float]:
    for key in KEYS:
        connector.set(key, VALUE)
    read = functools.partial(_watch, connector.get, ())
    write = functools.partial(_watch, connector.set, (VALUE,))
    stints = _load([read] * readers + [write] * writers, seconds)
    return [
        number
        for group in (stints[:readers], stints[readers:])
        for number in (_rate(group, stints), *_percentiles(group))
    ]


def _watch(
    operation: Callable[..., object],
    arguments: tuple[bytes, ...],
    ready: threading.Barrier,
    stop: threading.Event,
) -> _Stint:
    """Do one operation over and over, at least once, and time each."""
    times = []
    clock = time.perf_counter_ns
    ready.wait(PATIENCE)
    begin = clock()
    for key in itertools.cycle(KEYS):
        before = clock()
        operation(key, *arguments)
        after = clock()
        times.append(after - before)
        if stop.is_set():
            break
    return _Stint(begin, clock(), len(times), times)


def _percentiles(stints: Sequence[_Stint]) -> list[float]:
    """Get the 50th, 99th and 99.9th percentile and the maximum of all waits.

    In microseconds.
    """
    times = sorted(itertools.chain(*(stint.waits for stint in stints)))
    return [
        times[int(part * (len(times) - 1))] / 1000
        for part in (0.5, 0.99, 0.999, 1)
    ]


def growth(effort: Effort) -> Iterator[Case]:
    """Time `set` after more and more threads have read.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each number of threads, and one for threads that are gone.
    """
    for threads in ALIVE:
        yield Case(
            'growth',
            'set after others have read',
            (Column(of_alive(threads), 'ns', 'lower', statistics.median),),
            effort.processes,
            functools.partial(_growth_alive, threads, effort),
        )
    yield Case(
        'growth',
        'set after others have read',
        (Column(f'{effort.ended:,} ended', 'ns', 'lower', min),),
        1,
        functools.partial(_growth_ended, effort),
    )


def of_alive(threads: int) -> str:
    """Name a number of threads that have read and are alive."""
    return f'{threads} alive'


def _growth_alive(
    threads: int,
    effort: Effort,
    connector: Connector,
) -> Sequence[float]:
    def read_and_park(ready: threading.Barrier, stop: threading.Event) -> None:
        try:
            connector.get(KEYS[0])
        finally:
            ready.wait(PATIENCE)
        stop.wait()

    with _crew([read_and_park] * threads):
        return _price(SET, effort.calls, 1, effort.best_of, connector)


def _growth_ended(effort: Effort, connector: Connector) -> Sequence[float]:
    for _ in range(effort.ended):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(connector.get, KEYS[0]).result()
    return _price(SET, effort.calls, 1, effort.best_of, connector)


def batches(effort: Effort) -> Iterator[Case]:
    """Time batches of more and more objects.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each operation and size.
    """
    for name, statement in (
        ('get_batch', 'connector.get_batch(keys)'),
        ('put_batch', 'connector.put_batch(values)'),
    ):
        for size in BATCHES:
            number = max(1, effort.calls // size)
            repeats = effort.best_of if size <= effort.calls else 1
            yield Case(
                'batches',
                name,
                (Column(f'{size:,}', 'ns/obj', 'lower', statistics.median),),
                effort.rounds,
                functools.partial(
                    _price,
                    statement,
                    number,
                    size,
                    repeats,
                    batch=size,
                ),
            )


def objects(effort: Effort) -> Iterator[Case]:
    """Time `set` and `get` of larger and larger objects.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each size.
    """
    for name, size in SIZES.items():
        yield Case(
            'objects',
            'set and get',
            (Column(name, 'ns', 'lower', statistics.median),),
            effort.rounds,
            functools.partial(_objects, size, effort),
        )


def _objects(
    size: int,
    effort: Effort,
    connector: Connector,
) -> Sequence[float]:
    return _price(
        f'{SET}; connector.get(key)',
        effort.calls,
        1,
        effort.best_of,
        connector,
        _zeros(size),
    )


@functools.cache
def _zeros(size: int) -> bytes:
    return bytes(size)


def store(effort: Effort) -> Iterator[Case]:
    """Count what threads get done through Stores of ProxyStore.

    Nine of ten operations get an object, the tenth puts one and evicts it. To
    deserialize is either pure computing, or it waits as if for a disk.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for each number of threads that share a Store, and that have
        one each. None if ProxyStore is not installed.
    """
    if importlib.util.find_spec('proxystore') is None:
        return
    for waiting, shared, threads in itertools.product(
        (False, True),
        (True, False),
        STORE_THREADS,
    ):
        yield Case(
            'store',
            of_stores(shared, waiting),
            (Column(of_threads(threads), 'k/s', 'higher', statistics.median),),
            effort.rounds,
            functools.partial(
                _store,
                1 if shared else threads,
                threads,
                _wait_and_loads if waiting else None,
                effort.seconds,
            ),
        )


def of_stores(shared: bool, waiting: bool) -> str:
    """Name a way to use Stores."""
    stores = 'one Store for all' if shared else 'a Store a thread'
    return f'{stores}, {"1 ms of waiting" if waiting else "computing"}'


def _wait_and_loads(data: bytes) -> Any:
    time.sleep(0.001)
    return importlib.import_module('proxystore.serialize').deserialize(data)


def _store(
    number: int,
    threads: int,
    deserializer: Callable[[bytes], Any] | None,
    seconds: float,
    connector: Connector,
) -> Sequence[float]:
    store_type = importlib.import_module('proxystore.store').Store
    stores = [
        store_type(
            f'store-{n}',
            connector,
            cache_size=0,
            deserializer=deserializer,
        )
        for n in range(number)
    ]
    stored = [stores[0].put(OBJECT) for _ in range(64)]
    chunks = [stored[start : start + 9] for start in range(len(stored) - 9)]
    stints = _load(
        [
            functools.partial(
                _keep_on,
                chunks,
                functools.partial(_use_store, stores[thread % number]),
            )
            for thread in range(threads)
        ],
        seconds,
    )
    return (_rate(stints, stints),)


def _use_store(user: Any, keys: Sequence[Any]) -> int:
    """Get some objects, put one and evict it."""
    for key in keys:
        user.get(key)
    user.evict(user.put(OBJECT))
    return len(keys) + 1


def memory(effort: Effort) -> Iterator[Case]:
    """Count the bytes that storing an object takes, by `tracemalloc`.

    These are the key, its place in the dict, and whatever the connector adds.
    The value itself is not among them: it is there before.

    Args:
        effort: How much work to put into it.

    Yields:
        A case for a connector beside a dict with keys of the same kind.
    """
    yield Case(
        'memory',
        f'{effort.objects:,} objects',
        (
            Column('put', 'bytes/obj', 'lower', min),
            Column('plain dict', 'bytes/obj', 'lower', min),
        ),
        effort.rounds,
        functools.partial(_memory, effort.objects),
    )


def _memory(objects: int, connector: Connector) -> Sequence[float]:
    values = [VALUE] * objects
    return (
        _traced(lambda: deque(map(connector.put, values), 0)) / objects,
        _traced(lambda: {connector.new_key(): v for v in values}) / objects,
    )


def _traced(build: Callable[[], Any]) -> int:
    """Get the bytes that are allocated by a call and still in use after."""
    gc.collect()
    tracemalloc.start()
    try:
        built = build()
        gc.collect()
        in_use, _ = tracemalloc.get_traced_memory()
        del built
    finally:
        tracemalloc.stop()
    return in_use


WORKLOADS: dict[str, Callable[[Effort], Iterator[Case]]] = {
    workload.__name__: workload
    for workload in (
        price,
        throughput,
        waits,
        growth,
        batches,
        objects,
        store,
        memory,
    )
}
