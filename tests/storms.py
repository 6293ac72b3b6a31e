"""Faults by the thousand, each storm a program that ends with an exact audit.

    python -m tests.storms STORM LOCK SECONDS

prints what it did as JSON. It exits with 1, and the stacks of all threads, if
an operation hung, was lost or done by half, or if the contents in the end are
not exactly what the completed operations imply.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import itertools
import json
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import LOCKS
from tests.harness import SteppingDict

# Seconds that a storm may take longer than it was told to, before it counts
# as hanging.
PATIENCE = float(os.environ.get('STORM_PATIENCE', '30'))
BUSY_THREADS = 4
BATCH_SIZE = 5
FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()

counts: Counter[str] = Counter()


class InterruptError(Exception):
    """What interrupts operations."""


class Worker:
    """Runs every operation, and knows exactly what must come of it.

    An operation is logged before it starts and when it has returned, so after
    an interrupt there is at most one of which it is not known whether it took
    place. Keys and values are the worker's own, so that other threads do not
    change what it must find.

    Args:
        connector: Connector to work on.
        name: Prefix of all its values.
    """

    def __init__(self, connector: LocalConnector, name: str) -> None:
        self.connector = connector
        self.second = LocalConnector(
            connector._store,
            include_data_in_config=True,
        )
        self.name = name.encode()
        self.random = random.Random(name)
        self.keys = [connector.new_key() for _ in range(4)]
        self.model: dict[LocalKey, bytes] = {}
        self.log: list[Any] = []
        self.number = 0
        # Not shared: a child would find it locked, on free-threaded builds.
        self.counts: Counter[str] = Counter()

    def value(self) -> bytes:
        self.number += 1
        return b'%s %d' % (self.name, self.number)

    def step(self, kind: str) -> None:
        """Do one operation, logged before and after."""
        connector = self.random.choice([self.connector, self.second])
        key = self.random.choice(self.keys)
        values = [self.value() for _ in range(3)]
        log = self.log.append
        if kind == 'put':
            log((kind, values[:1]))
            log([connector.put(values[0])])
        elif kind == 'put_batch':
            log((kind, values))
            log(connector.put_batch(values))
        elif kind == 'set':
            log((kind, key, values[0]))
            connector.set(key, values[0])
            log(None)
        elif kind == 'evict':
            log((kind, key))
            connector.evict(key)
            log(None)
        elif kind == 'get':
            log((kind, key))
            log(connector.get(key))
        elif kind == 'exists':
            log((kind, key))
            log(connector.exists(key))
        elif kind == 'get_batch':
            log((kind,))
            log(connector.get_batch(self.keys))
        elif kind == 'config':
            log((kind,))
            log(self.second.config()['store_dict'])
        elif kind == 'len':
            log((kind,))
            log(len(connector))
        else:
            log((kind,))
            log(LocalConnector(connector._store))

    def steps(self) -> None:
        """Do a few of each operation, in random order."""
        kinds = ['put', 'put_batch', 'set', 'evict', 'get', 'exists']
        kinds += ['set', 'get', 'get_batch', 'config', 'len', 'connect']
        self.random.shuffle(kinds)
        for kind in kinds:
            self.step(kind)

    def work(self) -> None:
        """Do a few of each operation, and check what came of them."""
        self.steps()
        self.settle()

    def work_until_interrupted(self, arm: Callable[[], object]) -> None:
        """Do operations until an interrupt comes, and check what it left.

        Args:
            arm: Sees to it that one InterruptError comes, and only one.
        """
        try:
            arm()
            while True:
                self.steps()
        except InterruptError:
            self.counts['interrupts'] += 1
        self.settle()

    def settle(self) -> None:
        """Replay the log on the model, and see that all of it is true."""
        put: list[LocalKey] = []
        while len(self.log) > 1:
            begun, result, *self.log = self.log
            self.counts['operations'] += 1
            if begun[0] in ('put', 'put_batch'):
                put.extend(result)
                self.model.update(zip(result, begun[1]))
            else:
                self.replay(begun, result)
        for begun in self.log:
            self.resolve(begun)
        self.log = []
        assert self.connector.get_batch([*self.model]) == [
            *self.model.values(),
        ]
        for key in put:
            self.connector.evict(key)
            del self.model[key]

    def replay(self, begun: Any, result: Any) -> None:
        kind, key = (*begun, None)[:2]
        if kind == 'set':
            self.model[key] = begun[2]
        elif kind == 'evict':
            self.model.pop(key, None)
        elif kind == 'get':
            assert result is self.model.get(key), (begun, result)
        elif kind == 'exists':
            assert result is (key in self.model), (begun, result)
        elif kind == 'get_batch':
            assert result == list(map(self.model.get, self.keys)), result
        elif kind == 'config':
            for key in self.keys:
                assert result.get(key) is self.model.get(key), key
            self.check_batches(result)
        elif kind == 'len':
            assert result >= 0

    def resolve(self, begun: Any) -> None:
        """Find out if an interrupted operation was done or not at all."""
        kind = begun[0]
        self.counts['doubtful'] += 1
        if kind in ('put', 'put_batch'):
            found = {
                key: value
                for key, value in self.second.config()['store_dict'].items()
                if value in begun[1]
            }
            assert len(found) in (0, len(begun[1])), f'{begun} left {found}'
            for key in found:
                self.connector.evict(key)
        elif kind == 'set':
            value = self.connector.get(begun[1])
            assert value in (self.model.get(begun[1]), begun[2]), begun
            if value is not None:
                self.model[begun[1]] = value
        elif kind == 'evict' and not self.connector.exists(begun[1]):
            self.model.pop(begun[1], None)

    @staticmethod
    def check_batches(snapshot: dict[LocalKey, bytes]) -> None:
        """Of each batch all is there, but what has been evicted in order."""
        seen: dict[bytes, list[int]] = {}
        for value in snapshot.values():
            if value.startswith(b'batch'):
                batch, _, place = value.rpartition(b' ')
                seen.setdefault(batch, []).append(int(place))
        for batch, places in seen.items():
            whole = list(range(min(places), BATCH_SIZE))
            assert sorted(places) == whole, (batch, places)


def make_batches(connector: LocalConnector, stop: threading.Event) -> None:
    """Put batches, and evict them from their first object to their last."""
    number = 0
    while not stop.is_set():
        number += 1
        name = b'batch %d-%d' % (threading.get_ident(), number)
        objs = [b'%s %d' % (name, place) for place in range(BATCH_SIZE)]
        keys = connector.put_batch(objs)
        assert connector.get_batch(keys) == objs
        for key in keys:
            connector.evict(key)


class HookedDict(dict[LocalKey, bytes]):
    """A dict that calls a hook in the middle of a write.

    So that what a plain dict leaves to chance happens inside writes for sure.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hook: Callable[[], object] = lambda: None

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        super().__setitem__(key, value)
        self.hook()

    def pop(self, *arguments: Any) -> Any:
        value = super().pop(*arguments)
        self.hook()
        return value


class Storm:
    """A connector, busy threads on it, and the audit in the end."""

    def __init__(self, storm: str, lock: str, seconds: float) -> None:
        self.lock = lock
        self.hooked = HookedDict()
        self.connector = LocalConnector(
            self.hooked if storm in ('finalizers', 'handlers') else {},
            lock=LOCKS[lock](),
        )
        self.stop = threading.Event()
        self.end = time.monotonic() + seconds
        self.failures: list[BaseException] = []
        self.workers: list[Worker] = []
        self.threads: list[threading.Thread] = []

    def worker(self, name: str) -> Worker:
        self.workers.append(Worker(self.connector, name))
        return self.workers[-1]

    def on(self) -> bool:
        return time.monotonic() < self.end and not self.failures

    def start(
        self,
        work: Callable[..., object],
        *arguments: Any,
    ) -> threading.Thread:
        """Start a thread whose exception is the storm's."""

        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Busy threads beside; in the end all must have finished."""

        def work(worker: Worker) -> None:
            while not self.stop.is_set():
                worker.work()

        self.start(make_batches, self.connector, self.stop)
        for i in range(1, BUSY_THREADS):
            self.start(work, self.worker(f'busy-{i}'))
        try:
            yield
        finally:
            self.stop.set()
        for thread in self.threads:
            thread.join()

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        for error in self.failures:
            raise error
        gc.collect()
        for worker in self.workers:
            worker.work()
        implied = Counter(
            item for worker in self.workers for item in worker.model.items()
        )
        found = Counter(dict(self.connector._store).items())
        assert found == implied, f'{found - implied} and not {implied - found}'
        assert len(self.connector) == found.total()


def interrupts(storm: Storm) -> None:
    """A signal handler raises, at any point of every operation."""

    def handler(*_: object) -> None:
        raise InterruptError

    def arm() -> None:
        delay = worker.random.uniform(10e-6, 300e-6)
        signal.setitimer(signal.ITIMER_REAL, delay)

    worker = storm.worker('interrupted')
    signal.signal(signal.SIGALRM, handler)
    with storm.busy():
        while storm.on():
            worker.work_until_interrupted(arm)


def async_exceptions(storm: Storm) -> None:
    """Another thread sets exceptions in threads that work."""
    armed: queue.SimpleQueue[int] = queue.SimpleQueue()
    set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def work(worker: Worker) -> None:
        ident = threading.get_ident()
        while storm.on():
            worker.work_until_interrupted(lambda: armed.put(ident))
        armed.put(0)

    with storm.busy():
        for i in range(3):
            storm.start(work, storm.worker(f'interrupted-{i}'))
        ended = 0
        while ended < 3 and not storm.failures:
            ident = armed.get()
            ended += not ident
            time.sleep(random.uniform(0, 300e-6))
            if ident:
                set_exception(
                    ctypes.c_ulong(ident),
                    ctypes.py_object(InterruptError),
                )


def handlers(storm: Storm) -> None:
    """A signal handler uses the connector, inside any operation."""
    inside = storm.worker('handler')
    depth = 0

    def handler(*_: object) -> None:
        nonlocal depth
        if depth == 0:
            depth += 1
            inside.work()
            depth -= 1
            inside.counts['handlers'] += 1
        signal.setitimer(
            signal.ITIMER_REAL,
            inside.random.uniform(10e-6, 300e-6),
        )

    def hook() -> None:
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGALRM)

    outside = storm.worker('handled')
    signal.signal(signal.SIGALRM, handler)
    storm.hooked.hook = hook
    with storm.busy():
        signal.setitimer(signal.ITIMER_REAL, 100e-6)
        while storm.on():
            outside.work()
        storm.hooked.hook = lambda: None
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0)


class Litter:
    """Cyclic garbage whose finalizer uses the connector."""

    def __init__(self, connector: LocalConnector, mine: list[bytes]) -> None:
        self.cycle = self
        self.connector = connector
        self.key = connector.put(b'litter')
        self.mine = mine

    def __del__(self) -> None:
        connector = self.connector
        try:
            assert connector.get(self.key) == b'litter'
            connector.evict(self.key)
            assert not connector.exists(self.key)
            keys = connector.put_batch([b'litter', b'litter'])
            assert connector.get_batch(keys) == [b'litter'] * 2
            for key in keys:
                connector.evict(key)
            counts['finalizers'] += 1
        except BaseException as error:  # It would only be printed.
            traceback.print_exception(error)
            os._exit(1)


def finalizers(storm: Storm) -> None:
    """The garbage collector finalizes all the time, as threads come and go."""
    # Free-threaded builds wait for more garbage, unless the second is 0.
    gc.set_threshold(3, 0 if FREE_THREADED else 10)
    me = storm.worker('littering')
    writes = itertools.count()

    def hook() -> None:
        if next(writes) % 10 == 0:
            Litter(storm.connector, [])
            gc.collect(0)

    def come_and_go() -> None:
        while not storm.stop.is_set():
            Litter(storm.connector, [])
            key = LocalKey('missing')
            reader = threading.Thread(target=storm.connector.get, args=(key,))
            reader.start()
            reader.join()
            counts['threads'] += 1

    storm.hooked.hook = hook
    with storm.busy():
        storm.start(come_and_go)
        while storm.on():
            for _ in range(10):
                Litter(storm.connector, [])
            me.work()
    storm.hooked.hook = lambda: None


def forks(storm: Storm) -> None:
    """The process forks beside busy threads, from any thread."""
    warnings.simplefilter('ignore', DeprecationWarning)
    connector = storm.connector
    inspector = storm.worker('inspector')

    def fork() -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                # A child that hangs ends with this signal, and says where.
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                faulthandler.register(signal.SIGALRM, chain=True)
                signal.alarm(int(PATIENCE / 2))
                inspector.work()
                key = connector.put(b'child')
                assert connector.get(key) == b'child'
                os.write(writing, connector.new_key().id.encode())
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        mine = {connector.new_key().id for _ in range(3)}
        _, status = os.waitpid(pid, 0)
        theirs = os.read(reading, 100).decode()
        os.close(reading)
        assert status == 0, f'the child ended with status {status}'
        assert theirs
        assert theirs not in mine
        inspector.work()
        counts['forks'] += 1

    def fork_from_a_thread() -> None:
        while storm.on():
            fork()

    with storm.busy():
        thread = storm.start(fork_from_a_thread)
        thread.join()
        storm.end += 1
        while storm.on():
            fork()


def readers(storm: Storm) -> None:
    """Readers who leave the dict only when another is inside, and a writer.

    So a lock that lets readers in while a writer waits is never free. One
    that keeps them out has them leave after a moment.
    """
    inside = 0
    changed = threading.Condition()

    def linger() -> None:
        nonlocal inside
        if threading.current_thread() is threading.main_thread():
            return
        with changed:
            inside += 1
            changed.notify_all()
            changed.wait_for(lambda: inside > 1, timeout=0.5)
            inside -= 1

    connector = LocalConnector(
        SteppingDict(hook=linger),
        lock=LOCKS[storm.lock](),
    )
    key = connector.new_key()

    def read() -> None:
        connector.get(key)
        start.wait()
        while not storm.stop.is_set():
            connector.get(key)

    start = threading.Barrier(9)
    for _ in range(8):
        storm.start(read)
    start.wait()
    while storm.on():
        connector.set(key, b'')
        counts['writes'] += 1
    storm.stop.set()


STORMS = {
    storm.__name__: storm
    for storm in (
        interrupts,
        async_exceptions,
        handlers,
        finalizers,
        forks,
        readers,
    )
}


def main() -> None:
    """Run one storm."""
    parser = argparse.ArgumentParser(description='Run one storm of faults.')
    parser.add_argument('storm', choices=STORMS)
    parser.add_argument('lock', choices=LOCKS)
    parser.add_argument('seconds', type=float)
    options = parser.parse_args()
    faulthandler.dump_traceback_later(options.seconds + PATIENCE, exit=True)
    sys.setswitchinterval(1e-4)
    storm = Storm(options.storm, options.lock, options.seconds)
    STORMS[options.storm](storm)
    storm.audit()
    faulthandler.cancel_dump_traceback_later()
    for worker in storm.workers:
        counts.update(worker.counts)
    print(json.dumps(counts))


if __name__ == '__main__':
    main()
