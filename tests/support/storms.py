"""Faults by the thousand, each storm a program that ends with an exact audit.

    python -m tests.support.storms [--minutes] STORM LOCK SECONDS

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
import select
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import nullcontext
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.operations import OPERATIONS
from tests.support.processes import FREE_THREADED
from tests.support.scenes import hooked

# Seconds that a storm may take longer than it was told to, before it counts
# as hanging.
PATIENCE = float(os.environ.get('STORM_PATIENCE', '30'))
SECONDS_PER_LINE = 10
BUSY_THREADS = 4
BATCH_SIZE = 5
ALL_LOCKS = LOCKS | {'NoLock': NoLock}
# Seconds after which a child counts as hanging. Without a GIL some do.
CHILD_PATIENCE = 4 if FREE_THREADED else PATIENCE * 0.75

# Set in this order, again and again, by one thread. So who reads both at one
# moment does not see the second without the first, or newer than it.
ORDERED = (LocalKey('first'), LocalKey('second'))

# In place of the keys that an interrupted operation minted, or of the one.
UNKNOWN = tuple(LocalKey(f'unknown-{number}') for number in range(4))


class InterruptError(Exception):
    """What interrupts operations."""


class Here(threading.local):
    """What a thread keeps for itself.

    Attributes:
        inside: Does what finalizers do that run in this thread.
        armed: A signal is to do harm, once.
        swallowed: An interrupt came inside a finalizer, where it ended.
        watch: Calls back when the thread's last litter is finalized.
    """

    inside: Worker | None = None
    armed = False
    swallowed = False
    watch: weakref.ref[Litter] | None = None


here = Here()


class Worker:
    """Runs every operation, and knows exactly what must come of it.

    An operation is logged before it starts and when it has returned, so after
    an interrupt there is at most one of which it is not known whether it was
    done. Keys and values are the worker's own, so that other threads do not
    change what it must find. An interrupt may come anywhere: what the worker
    knows is changed at one stroke, in settle().

    Args:
        storm: What it works in.
        name: Prefix of all its values.
    """

    def __init__(self, storm: Storm, name: str) -> None:
        self.storm = storm
        self.connectors = [
            storm.connector,
            LocalConnector(storm.store, include_data_in_config=True),
        ]
        self.name = name.encode() + b' '
        self.random = random.Random(name)
        self.keys = [storm.connector.new_key() for _ in UNKNOWN]
        self.model: dict[LocalKey, bytes] = {}
        self.log: list[Any] = []
        self.number = 0
        # Not shared: a child would find it locked, on free-threaded builds.
        self.counts: Counter[str] = Counter()

    def do(self, name: str, *arguments: Any) -> Any:
        """Do one operation, logged before and after."""
        method = getattr(self.random.choice(self.connectors), name)
        self.log.append((name, arguments))
        self.log.append(method(*arguments))

    def work(self) -> None:
        """Do each operation, and check what came of it."""
        if self.log:  # An interrupt came the last time.
            self.settle()
        for key in [*self.model]:
            if key not in self.keys:  # It was put the last time.
                self.do('evict', key)
        names = [*OPERATIONS, 'set', 'get']
        self.random.shuffle(names)
        for name in names:
            self.number += 1
            arguments = OPERATIONS[name].arguments(
                b'%s%d' % (self.name, self.number),
                self.keys,
                self.random.randrange(len(self.keys)),
            )
            if self.storm.littering:
                litter()
            with self.storm.beside:
                self.do(name, *arguments)
        with self.storm.beside:
            self.look()
        self.settle()

    def look(self) -> None:
        """Batches of others are seen whole, by an old or a new connector."""
        connector = LocalConnector(
            self.storm.store,
            include_data_in_config=True,
        )
        first, second = connector.get_batch(self.storm.ordered)
        assert second is None or (first and first >= second), (first, second)
        check_batches(connector.config()['store_dict'])

    def work_until_interrupted(self, arm: Callable[[], object]) -> None:
        """Do operations until an interrupt comes, and check what it left.

        Args:
            arm: Sees to it that one InterruptError comes, and only one.
        """
        try:
            arm()
            # Not by a condition of the loop: on 3.12 and 3.13 an interrupt
            # at the jump back to that is not caught here.
            while True:
                if here.swallowed:
                    here.swallowed = False
                    break
                self.work()
        except InterruptError:
            pass
        self.counts['interrupts'] += 1
        self.settle()

    def settle(self) -> None:
        """Replay the log on the model, and see that all of it is true."""
        model = self.model.copy()
        for (name, arguments), result in zip(self.log[::2], self.log[1::2]):
            expected = OPERATIONS[name].model(model, result, *arguments)
            if name == 'config':
                assert self.own(result['store_dict']) == model
            elif name == '__len__':
                assert result >= expected
            else:
                assert result == expected, (name, result, expected)
        operations, doubtful = divmod(len(self.log), 2)
        found = self.own(self.connectors[1].config()['store_dict'])
        if doubtful:
            # It was done, or not at all.
            name, arguments = self.log[-1]
            done = model.copy()
            OPERATIONS[name].model(done, UNKNOWN, *arguments)
            left = sorted(found.values())
            assert left in (sorted(model.values()), sorted(done.values()))
            model = found
        assert found == model, f'{found} and not {model}'
        self.model = model
        self.log = []
        self.counts['operations'] += operations
        self.counts['doubtful'] += doubtful

    def own(self, snapshot: dict[LocalKey, bytes]) -> dict[LocalKey, bytes]:
        """What is this worker's of all that is stored."""
        return {
            key: value
            for key, value in snapshot.items()
            if value.startswith(self.name)
        }


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
        for key in ORDERED:
            connector.set(key, b'%015d' % number)
    for key in reversed(ORDERED):
        connector.evict(key)


class Storm:
    """A connector, busy threads on it, and the audit in the end."""

    def __init__(self, lock: str, seconds: float) -> None:
        self.store: dict[LocalKey, bytes] = {}
        self.connector = LocalConnector(
            self.store,
            include_data_in_config=True,
            lock=ALL_LOCKS[lock](),
        )
        self.ordered = ORDERED
        if lock != 'default':
            # So that others come in while one is read. With the default lock
            # nobody else may do that.
            first, second = ORDERED
            self.ordered = (first, hooked(second, self.let_in))
        # A lock that threads hold while they use the connector, and that
        # finalizers and handlers need as well, as that of a Store.
        self.beside: AbstractContextManager[object] = nullcontext()
        self.littering = False
        self.handling = False
        self.stop = threading.Event()
        self.begin = time.monotonic()
        self.end = self.begin + seconds
        self.failures: list[BaseException] = []
        self.workers: list[Worker] = []
        self.threads: list[threading.Thread] = []
        here.inside = self.worker('inside-main')

    def let_in(self) -> None:
        """Let others in, in the middle of a batch."""
        time.sleep(0)
        if self.littering:
            Dropped()
        if self.handling:
            self.handling = False
            signal.raise_signal(signal.SIGALRM)

    def worker(self, name: str) -> Worker:
        self.workers.append(Worker(self, name))
        return self.workers[-1]

    def fail(self, error: BaseException) -> None:
        """End the storm, and say why: it may hang from here on."""
        self.failures.append(error)
        traceback.print_exception(error)

    def on(self) -> bool:
        return time.monotonic() < self.end and not self.failures

    def rounds(self) -> Iterator[int]:
        """Count while the storm is on, but once at least."""
        for number in itertools.count():
            yield number
            if not self.on():
                break

    def start(
        self,
        work: Callable[..., object],
        *arguments: Any,
    ) -> threading.Thread:
        """Start a thread whose exception is the storm's."""
        inside = self.worker(f'inside-thread-{len(self.threads)}')
        thread = threading.Thread(
            target=self.run,
            args=(inside, work, *arguments),
            daemon=True,
        )
        self.threads.append(thread)
        thread.start()
        return thread

    def run(
        self,
        inside: Worker,
        work: Callable[..., object],
        *arguments: Any,
    ) -> None:
        here.inside = inside
        try:
            work(*arguments)
        except BaseException as error:
            self.fail(error)

    def note_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Take what was raised in a finalizer, where nobody catches it."""
        error = unraisable.exc_value
        if isinstance(error, InterruptError):
            here.swallowed = True
        elif error is not None:
            self.fail(error)

    @contextmanager
    def busy(self, threads: int = BUSY_THREADS) -> Iterator[None]:
        """Busy threads beside; in the end all must have finished."""

        def work(worker: Worker) -> None:
            while not self.stop.is_set():
                worker.work()

        self.start(make_batches, self.connector, self.stop)
        for i in range(1, threads):
            self.start(work, self.worker(f'busy-{i}'))
        try:
            yield
        finally:
            self.stop.set()
        for thread in self.threads:
            thread.join()

    def tell(self) -> None:
        """Print how far the storm is, where it does not mix with the JSON."""
        now = time.monotonic()
        done = sum(worker.counts['operations'] for worker in self.workers)
        print(
            f'{now - self.begin:.0f} of {self.end - self.begin:.0f} seconds, '
            f'{done:,} operations',
            file=sys.stderr,
        )

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        gc.collect()
        here.inside = None
        for error in self.failures:
            raise error
        for worker in self.workers:
            worker.work()
        implied = Counter(
            item for worker in self.workers for item in worker.model.items()
        )
        found = Counter(self.store.items())
        assert found == implied, f'{found - implied} and not {implied - found}'
        assert len(self.connector) == found.total()


def interrupts(storm: Storm) -> None:
    """A signal handler raises, at any point of every operation."""

    def handler(*_: object) -> None:
        raise InterruptError

    worker = storm.worker('interrupted')
    signal.signal(signal.SIGALRM, handler)
    with storm.busy():
        while storm.on():
            worker.work_until_interrupted(lambda: set_alarm(worker.random))


def set_alarm(source: random.Random) -> None:
    signal.setitimer(signal.ITIMER_REAL, source.uniform(10e-6, 300e-6))


def async_exceptions(storm: Storm) -> None:
    """Another thread sets exceptions in threads that work."""
    with storm.busy():
        for thread in start_interrupted(storm):
            thread.join()


def start_interrupted(storm: Storm) -> list[threading.Thread]:
    """Start threads that work, and one that sets exceptions in them."""
    armed: queue.SimpleQueue[int] = queue.SimpleQueue()
    count = 3

    def work(worker: Worker) -> None:
        ident = threading.get_ident()
        try:
            while storm.on():
                worker.work_until_interrupted(lambda: armed.put(ident))
        finally:
            armed.put(0)

    def set_exceptions() -> None:
        set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
        ended = 0
        while ended < count:
            ident = armed.get()
            ended += not ident
            time.sleep(random.uniform(0, 300e-6))
            if ident:
                set_exception(
                    ctypes.c_ulong(ident),
                    ctypes.py_object(InterruptError),
                )

    threads = [
        storm.start(work, storm.worker(f'interrupted-{i}'))
        for i in range(count)
    ]
    return [*threads, storm.start(set_exceptions)]


def handlers(storm: Storm) -> None:
    """A signal handler uses the connector and a lock, inside any operation."""
    storm.beside = threading.RLock()
    inside = storm.worker('handler')

    def handler(*_: object) -> None:
        inside.work()
        inside.counts['handlers'] += 1
        set_alarm(inside.random)

    outside = storm.worker('handled')
    signal.signal(signal.SIGALRM, handler)
    with storm.busy():
        set_alarm(inside.random)
        while storm.on():
            storm.handling = True
            outside.work()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


class Litter:
    """Cyclic garbage with two finalizers that use the connector."""

    def __init__(self) -> None:
        self.cycle = self
        here.watch = weakref.ref(self, finalize)

    def __del__(self) -> None:
        finalize()


class Dropped:
    """Garbage that is finalized at once, as it is in no cycle."""

    def __del__(self) -> None:
        finalize()


def litter() -> None:
    """Make garbage, unless the last is still about.

    So that it is not made faster than it is collected.
    """
    if here.watch is None or here.watch() is None:
        Litter()


def finalize(_: object = None) -> None:
    worker = here.inside
    if worker is not None:
        here.inside = None  # For the finalizers inside this one.
        try:
            worker.work()
            worker.counts['finalizers'] += 1
        finally:
            here.inside = worker


def come_and_go(storm: Storm, visitor: Worker, inside: Worker) -> None:
    """Start threads that do a few of each operation, one after the other."""
    for _ in storm.rounds():
        thread = threading.Thread(
            target=storm.run,
            args=(inside, visitor.work),
        )
        thread.start()
        thread.join()
        visitor.counts['threads'] += 1


def finalizers(storm: Storm) -> None:
    """The garbage collector finalizes all the time, as threads come and go."""
    storm.beside = threading.RLock()
    storm.littering = True
    collect_often()
    with storm.busy():
        come_and_go(
            storm,
            storm.worker('visitor'),
            storm.worker('inside-visitor'),
        )


def collect_often() -> None:
    # Free-threaded builds wait for more garbage, unless the second is 0.
    gc.set_threshold(10, 0 if FREE_THREADED else 10)
    gc.freeze()  # So that a collection takes no longer than an operation.


def forks(storm: Storm) -> None:
    """The process forks beside busy threads, from any thread."""
    inspector = storm.worker('inspector')
    with storm.busy():
        thread = storm.start(fork_again_and_again, storm, inspector)
        thread.join()
        storm.end += 1
        fork_again_and_again(storm, inspector)


def fork_again_and_again(storm: Storm, inspector: Worker) -> None:
    for _ in storm.rounds():
        fork(storm, inspector)


def fork(storm: Storm, inspector: Worker) -> None:
    """Fork, and see that both sides can go on.

    The child touches nothing that other threads change but the connector: on
    a free-threaded build it might find it locked.
    """
    connector = storm.connector
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            # A child that hangs ends with this signal, and says where: to the
            # descriptor, since somebody may have been writing to sys.stderr.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(CHILD_PATIENCE / 1.5) or 1)
            faulthandler.register(signal.SIGALRM, 2, chain=True)
            inspector.work()
            key = connector.put(b'child')
            assert connector.get(key) == b'child'
            os.write(writing, connector.new_key().id.encode())
            for error in storm.failures:
                raise error
            code = 0
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(writing)
    mine = {connector.new_key().id for _ in range(3)}
    if not select.select([reading], [], [], CHILD_PATIENCE)[0]:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    if FREE_THREADED and os.WIFSIGNALED(status):
        # A dict or list that another thread was about to change stays locked
        # inside, in the child, in CPython itself.
        inspector.counts['hung children'] += 1
        return
    assert status == 0, f'the child ended with status {status}'
    assert theirs
    assert theirs not in mine
    inspector.work()
    inspector.counts['forks'] += 1


def soak(storm: Storm) -> None:
    """All these faults at once, in eight busy threads.

    A handler uses the connector, and is itself interrupted, or it raises.
    Finalizers are interrupted as well.
    """
    storm.littering = True
    collect_often()
    me = storm.worker('main')
    idle = [storm.worker(f'handler-{i}') for i in range(2)]
    # What handlers do next: each True needs a False to come back from.
    uses = itertools.cycle(
        [True, False, False, False, True, True, False, False, False],
    )

    def arm() -> None:
        here.armed = True
        set_alarm(me.random)

    def handler(*_: object) -> None:
        if not here.armed:
            return
        here.armed = False
        if not next(uses):
            raise InterruptError
        worker = idle.pop()
        worker.work_until_interrupted(arm)
        worker.counts['handlers'] += 1
        idle.append(worker)
        arm()

    signal.signal(signal.SIGALRM, handler)
    with storm.busy(2):
        start_interrupted(storm)
        storm.start(
            come_and_go,
            storm,
            storm.worker('visitor'),
            storm.worker('inside-visitor'),
        )
        storm.start(fork_again_and_again, storm, storm.worker('forking'))
        told = time.monotonic()
        for number in storm.rounds():
            me.work_until_interrupted(arm)
            if number % 50 == 0:
                fork(storm, me)
            if time.monotonic() > told + SECONDS_PER_LINE:
                told += SECONDS_PER_LINE
                storm.tell()


STORMS = {
    storm.__name__: storm
    for storm in (
        interrupts,
        async_exceptions,
        handlers,
        finalizers,
        forks,
        soak,
    )
}


def main() -> None:
    """Run one storm."""
    parser = argparse.ArgumentParser(description='Run one storm of faults.')
    parser.add_argument('storm', choices=STORMS)
    parser.add_argument('lock', choices=ALL_LOCKS)
    parser.add_argument('seconds', type=float)
    parser.add_argument(
        '--minutes',
        action='store_true',
        help='take SECONDS as minutes',
    )
    options = parser.parse_args()
    seconds = options.seconds * (60 if options.minutes else 1)
    faulthandler.dump_traceback_later(seconds + PATIENCE, exit=True)
    sys.setswitchinterval(1e-4)
    # What is tested here.
    warnings.simplefilter('ignore', DeprecationWarning)
    storm = Storm(options.lock, seconds)
    sys.unraisablehook = storm.note_unraisable
    STORMS[options.storm](storm)
    storm.audit()
    faulthandler.cancel_dump_traceback_later()
    counts: Counter[str] = Counter()
    for worker in storm.workers:
        counts.update(worker.counts)
    print(json.dumps(counts))


if __name__ == '__main__':
    main()
