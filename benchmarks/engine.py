"""The engine: puts every peer through every case, in fresh processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import timeit
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait
from importlib import import_module
from typing import Any
from typing import NamedTuple

from benchmarks.peers import find_peers
from benchmarks.peers import Peer
from proxystore_local import LocalKey

# What a thread does. It waits at the barrier before, and until the event.
Worker = Callable[[threading.Barrier, threading.Event], Any]

# Seconds after which threads that did not all start give up.
PATIENCE = 60

KEYS = [LocalKey(str(uuid.UUID(int=n, version=4))) for n in range(1024)]
VALUE = bytes(100)
BATCH = 1000
OBJECT = list(range(100))
SET = 'connector.set(key, value)'


class Effort(NamedTuple):
    """How much work goes into each measurement.

    Attributes:
        calls: Calls to time at a stretch. Also bounds what puts store.
        best_of: Such stretches in one process, of which the best counts.
        processes: Processes in which to do that, of which the median counts.
        rounds: Runs of everything else, each in a process of its own.
        seconds: Duration of a run of throughput. Waits take four times that.
        ended: Short-lived threads of the growth workload.
        objects: Objects of the memory workload.
        batches: Batches of the torn workload.
        cycles: Reference cycles of each thread of the owned workload.
    """

    calls: int = 5_000
    best_of: int = 3
    processes: int = 12
    rounds: int = 3
    seconds: float = 0.06
    ended: int = 10_000
    objects: int = 10_000
    batches: int = 50
    cycles: int = 500


QUICK = Effort(1_000, 2, 2, 1, 0.01, 500, 1_000, 10, 100)


class Column(NamedTuple):
    """One number that a case finds out: its name, unit, and which counts."""

    name: str
    unit: str
    combine: Callable[[Sequence[float]], float] = statistics.median


class Case(NamedTuple):
    """Something to put a peer through, a number of times.

    It returns a number for each column of its table, or fewer if this peer
    cannot fill them all.
    """

    table: str
    columns: Sequence[Column]
    rounds: int
    run: Callable[[Peer], Sequence[float]]


class Measurement(NamedTuple):
    """One cell of a table: what came out for one peer.

    Attributes:
        workload: Workload of the case.
        table: Table of the case.
        column: Name of the column.
        peer: Name of the peer.
        value: Outcome of all rounds.
        unit: Unit of the value.
        rounds: Outcome of each round, which tells how noisy the value is.
    """

    workload: str
    table: str
    column: str
    peer: str
    value: float
    unit: str
    rounds: Sequence[float] = ()

    @property
    def better(self) -> str:
        """Which values are the good ones, `higher` or `lower`."""
        return 'higher' if self.unit == 'k/s' else 'lower'


def find_cases(workload: str, effort: Effort) -> list[Case]:
    """Get the cases of a workload."""
    module = import_module(f'benchmarks.workloads.{workload}')
    return list(module.cases(effort))


def measure(
    effort: Effort,
    workloads: Sequence[str],
    watch: Callable[[list[Any]], Iterable[Any]],
) -> list[Measurement]:
    """Put all peers through all cases.

    Each turn of a workload runs in a new process, so that what differs from
    process to process (the layout of memory, hashes of strings) is averaged
    out. The turns of a case lie far apart, so that a busy moment of the
    machine does not hit them all.

    Args:
        effort: How much work to put into it.
        workloads: Names of the workloads.
        watch: Shows the progress while it iterates over all turns.

    Returns:
        All that was measured.
    """
    cases = {name: find_cases(name, effort) for name in workloads}
    turns = [
        (turn, name)
        for turn in range(max(effort.processes, effort.rounds))
        for name in workloads
        if any(turn < case.rounds for case in cases[name])
    ]
    found: dict[tuple[str, int], list[dict[str, Sequence[float]]]] = {}
    for turn, name in watch(turns):
        for number, results in _in_child(effort, name, turn):
            found.setdefault((name, number), []).append(results)
    return [
        Measurement(
            name,
            cases[name][number].table,
            column.name,
            peer.name,
            _round(column.combine(values)),
            column.unit,
            [*map(_round, values)],
        )
        for (name, number), rounds in found.items()
        for peer in find_peers()
        for column, values in zip(
            cases[name][number].columns,
            zip(*(results[peer.name] for results in rounds)),
        )
    ]


def _round(value: float) -> float:
    """Keep four digits; noise has more."""
    return float(f'{value:.4g}')


def _in_child(effort: Effort, workload: str, turn: int) -> Any:
    """Get what `run_cases` prints in a process of its own."""
    program = 'from benchmarks.engine import run_cases; run_cases()'
    asked = json.dumps([effort, workload, turn])
    child = subprocess.run(
        [sys.executable, '-c', program, asked],
        stdout=subprocess.PIPE,
        check=True,
        # Ctrl-C is for the parent, which then kills the child.
        process_group=0 if os.name == 'posix' else None,
    )
    return json.loads(child.stdout)


def run_cases() -> None:
    """Run the cases of a turn, and print what came out of each."""
    effort, workload, turn = json.loads(sys.argv[1])
    peers = find_peers()
    found = []
    for number, case in enumerate(find_cases(workload, Effort(*effort))):
        if turn < case.rounds:
            # Not always the same peer comes first.
            first = (turn + number) % len(peers)
            order = peers[first:] + peers[:first]
            found.append((number, {p.name: case.run(p) for p in order}))
    print(json.dumps(found))


def nanoseconds(
    statement: str,
    effort: Effort,
    peer: Peer,
    connector: Any = None,
    *,
    batch: int = 0,
    value: bytes = VALUE,
) -> tuple[float, ...]:
    """Time the calls of a statement, as `timeit` does.

    Args:
        statement: What to time. It may use `connector`, `key`, `keys` (all of
            them stored), `last_missing`, `missing`, `value` and `values`.
        effort: How often to run it.
        peer: What to time.
        connector: Its connector, by default a new one.
        batch: Objects that it handles, if it handles more than one. So long
            are `keys` and `values`, by default 1000.
        value: What to store.

    Returns:
        Nanoseconds for each object, or nothing if there is no such call.
    """
    connector = peer.make() if connector is None else connector
    if statement.startswith('len(') and not hasattr(connector, '__len__'):
        return ()
    keys = [KEYS[n % BATCH] for n in range(batch or BATCH)]
    timer = timeit.Timer(
        statement,
        # Before each stretch and not timed, so that evict finds its keys.
        'for k in set(keys): connector.set(k, value)',
        globals={
            'connector': connector,
            'key': KEYS[0],
            'keys': keys,
            'last_missing': [*keys[:-1], KEYS[-1]],
            'missing': KEYS[-1],
            'value': value,
            'values': [value] * len(keys),
        },
    )
    # One more, to warm up.
    _, *times = timer.repeat(1 + effort.best_of, effort.calls)
    return (min(times) / effort.calls / (batch or 1) * 1e9,)


def filled(peer: Peer) -> Any:
    """Make a connector that holds a value for each of KEYS."""
    connector = peer.make()
    for key in KEYS:
        connector.set(key, VALUE)
    return connector


@contextlib.contextmanager
def crew(workers: Sequence[Worker]) -> Iterator[list[Future[Any]]]:
    """Run each worker in a thread of its own, until the context is left.

    Workers meet at the barrier; then the context is entered. When it is left,
    the event tells them to stop, and if one has failed, so does this.
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


def load(workers: Sequence[Worker], seconds: float) -> list[Any]:
    """Run workers side by side for a while, or until one fails."""
    with crew(workers) as futures:
        wait(futures, seconds, FIRST_EXCEPTION)
    return [future.result() for future in futures]


class Stint(NamedTuple):
    """What a worker did, and when by `perf_counter_ns`.

    The times are the worker's own: where threads compete for the interpreter
    the main thread wakes up late.
    """

    begin: int
    end: int
    operations: int
    waits: Sequence[int] = ()


def keep_on(
    chunks: Iterable[Any],
    do: Callable[[Any], int],
    ready: threading.Barrier,
    stop: threading.Event,
) -> Stint:
    """Do chunk after chunk, round and round, and at least one of them."""
    operations = 0
    ready.wait(PATIENCE)
    begin = time.perf_counter_ns()
    for chunk in itertools.cycle(chunks):
        operations += do(chunk)
        if stop.is_set():
            break
    return Stint(begin, time.perf_counter_ns(), operations)


def rate(group: Sequence[Stint], everyone: Sequence[Stint]) -> float:
    """Get how many thousand operations a second a part of a crew did."""
    begin = min(stint.begin for stint in everyone)
    end = max(stint.end for stint in everyone)
    return sum(stint.operations for stint in group) / (end - begin) * 1e6
