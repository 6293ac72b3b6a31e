"""Faults by the thousand, all at once, and an exact audit in the end.

    python -m tests.support.soak MINUTES [LOCK]

Eight threads use one connector. Signal handlers raise or use it, exceptions
are set in threads, finalizers run, and the process forks from any thread. What
strikes operations strikes handlers and finalizers as well.

Prints what it did as JSON. It exits with 1, and the stacks of all threads, if
an operation hung, was lost or done by half, or if the contents in the end are
not exactly what the completed operations imply.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
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
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from operator import call
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import OPERATIONS
from tests.support.processes import fork_inside
from tests.support.processes import FREE_THREADED
from tests.support.scenes import hooked

ALL_LOCKS = LOCKS | {'NoLock': NoLock}

# Seconds after which a child counts as hanging. Without a GIL some do.
CHILD_PATIENCE = 2 if FREE_THREADED else PATIENCE // 2
SECONDS_PER_LINE = 10

# What a signal handler does: it uses the connector, and has to come back by
# itself; or it does so until another one, inside it, raises; or it raises.
HANDLERS = ['use', 'use until struck', 'raise']

# Put again and again by one thread, which evicts it from first to last.
BATCH = [b'batch %d' % number for number in range(5)]

# In place of the keys that an interrupted operation minted, or of the one.
UNKNOWN = tuple(range(4))


class InterruptError(Exception):
    """What interrupts operations."""


class Here(threading.local):
    """What a thread keeps for itself."""

    # Works in the finalizers that run in this thread.
    inside: Worker | None = None
    # Calls back when the thread's last litter is finalized.
    litter: weakref.ref[Litter] | None = None
    # An interrupt came inside a finalizer, where it ended.
    swallowed = False


here = Here()


class Litter:
    """What uses the connector when it is finalized."""

    cycle: Litter | None = None

    def __del__(self) -> None:
        finalize()


def drop_litter() -> None:
    """Make cyclic garbage, but not faster than it is collected."""
    if here.litter is None or here.litter() is None:
        litter = Litter()
        litter.cycle = litter
        here.litter = weakref.ref(litter, finalize)


def finalize(_: object = None) -> None:
    worker = here.inside
    if worker is not None:
        here.inside = None  # For the finalizers inside this one.
        try:
            worker.work()
            worker.counts['finalizers'] += 1
        finally:
            here.inside = worker


def set_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(10e-6, 300e-6))


class Worker:
    """Runs every operation, and knows exactly what must come of it.

    An operation is logged before it starts, and its result when it has
    returned, so after an interrupt there is at most one of which it is not
    known whether it was done. Keys and values are the worker's own, so that
    other threads do not change what it must find. An interrupt may come
    anywhere: what the worker knows is changed at one stroke, in settle().
    """

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.name = b'%d ' % len(soak.workers)  # All its values begin so.
        self.connector = soak.connect()
        self.keys = [self.connector.new_key() for _ in UNKNOWN]
        self.model: dict[LocalKey, bytes] = {}
        self.log: list[tuple[str, tuple[Any, ...]]] = []
        self.results: list[Any] = []
        # Neither is shared: a child would find it locked, without a GIL.
        self.random = random.Random(self.name)
        self.counts: Counter[str] = Counter()

    def do(self, name: str, *arguments: Any) -> None:
        """Do one operation, logged before and after."""
        self.log.append((name, arguments))
        self.results.append(getattr(self.connector, name)(*arguments))

    def work(self) -> None:
        """Check what came of the last time, and do each operation."""
        self.settle()
        self.connector = self.soak.connect()
        for key in self.model.keys() - self.keys:  # It was put the last time.
            self.do('evict', key)
        names = [*OPERATIONS, 'set', 'get']
        self.random.shuffle(names)
        for name in names:
            value = b'%s%d' % (self.name, self.random.getrandbits(64))
            number = self.random.randrange(len(self.keys))
            arguments = OPERATIONS[name].arguments(value, self.keys, number)
            drop_litter()
            self.do(name, *arguments)
        # Of the batch all is there, but what has been evicted in order.
        first, *others = self.soak.batch
        between: list[LocalKey] = []
        if self.soak.lock != 'default':  # Inside which nobody comes in.
            let_in = partial(time.sleep, 0)
            between = [hooked(key, let_in) for key in self.keys]
        for values in (
            self.connector.get_batch([first, *between, *others]),
            self.connector.config()['store_dict'].values(),
        ):
            seen = [value for value in values if value in BATCH]
            assert seen == BATCH[len(BATCH) - len(seen) :], seen

    def work_until_struck_by(self, fault: str) -> None:
        """Work until an interrupt comes."""
        try:
            if fault == 'interrupts':
                set_alarm()
            else:
                self.soak.armed.put(threading.get_ident())
            # Not by a condition of the loop: on 3.12 and 3.13 an interrupt
            # at the jump back to that is not caught here.
            while True:
                if here.swallowed:
                    here.swallowed = False
                    break
                self.work()
        except InterruptError:
            pass
        self.counts[fault] += 1

    def settle(self) -> None:
        """Replay the log on the model, and see that all of it is true."""
        model = self.model.copy()
        for (name, arguments), result in zip(self.log, self.results):
            expected = OPERATIONS[name].model(model, result, *arguments)
            if not OPERATIONS[name].whole:
                assert result == expected, (name, result, expected)
        found = {
            key: value
            for key, value in self.connector.config()['store_dict'].items()
            if value.startswith(self.name)
        }
        done = len(self.results)
        if done < len(self.log):
            # The last one was done, or not at all.
            name, arguments = self.log[-1]
            after = model.copy()
            OPERATIONS[name].model(after, UNKNOWN, *arguments)
            values = sorted(found.values())
            assert values in (sorted(model.values()), sorted(after.values()))
            model = found
        assert found == model, f'{found} and not {model}'
        self.model = model
        self.log = []
        self.results = []
        self.counts['operations'] += done


class Soak:
    """What strikes threads that work, and the audit in the end."""

    def __init__(self, seconds: float, lock: str) -> None:
        self.lock = lock
        self.told = time.monotonic()
        self.end = self.told + seconds
        self.over = False
        self.failures: list[BaseException] = []
        self.store: dict[LocalKey, bytes] = {}
        self.connector = LocalConnector(self.store, lock=ALL_LOCKS[lock]())
        self.batch = [self.connector.new_key()]
        self.threads: list[threading.Thread] = []
        self.workers: list[Worker] = []
        # Those of signal handlers: one may come inside another.
        self.idle = [self.worker(), self.worker()]
        # Threads in which an exception is to be set.
        self.armed: queue.SimpleQueue[int] = queue.SimpleQueue()

    def connect(self) -> LocalConnector:
        return LocalConnector(self.store, include_data_in_config=True)

    def worker(self) -> Worker:
        self.workers.append(Worker(self))
        return self.workers[-1]

    def fail(self, uncaught: Any) -> None:
        """End the soak, and say why: it may hang from here on."""
        self.failures.append(uncaught.exc_value)
        traceback.print_exception(uncaught.exc_value)

    def note_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Take what was raised in a finalizer, where nobody catches it."""
        if isinstance(unraisable.exc_value, InterruptError):
            here.swallowed = True
        else:
            self.fail(unraisable)

    def again(
        self,
        inside: Worker,
        work: Callable[..., object],
        *arguments: Any,
    ) -> None:
        """Work until it is over, but once at least."""
        here.inside = inside
        while True:
            work(*arguments)
            if self.failures or time.monotonic() > self.end:
                break

    def start(self, work: Callable[..., object], *arguments: Any) -> None:
        """Start a thread that works again and again."""
        args = (self.worker(), work, *arguments)
        thread = threading.Thread(target=self.again, args=args, daemon=True)
        thread.start()
        self.threads.append(thread)

    def run(self) -> None:
        """Let the faults strike threads that work, until it is over."""
        self.start(self.put_and_evict_a_batch)
        threading.Thread(target=self.set_exceptions, daemon=True).start()
        for _ in range(2):
            work = self.worker().work_until_struck_by
            self.start(work, 'async_exceptions')
        # Free-threaded builds wait for more, unless the second is 0.
        gc.set_threshold(5, 0 if FREE_THREADED else 10)
        gc.freeze()  # So that a collection is as short as an operation.
        self.start(self.visit, self.worker(), self.worker())
        self.start(self.fork, self.worker())
        signal.signal(signal.SIGALRM, self.handle)
        self.again(self.worker(), self.work_in_main_thread, self.worker())
        self.over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        for thread in self.threads:
            thread.join()

    def work_in_main_thread(self, me: Worker) -> None:
        """Work where signal handlers run, fork, and tell how it goes."""
        me.work_until_struck_by('interrupts')
        if random.random() < 0.02:
            self.fork(me)
        if time.monotonic() > self.told + SECONDS_PER_LINE:
            self.told += SECONDS_PER_LINE
            done = sum(worker.counts['operations'] for worker in self.workers)
            line = f'{self.end - self.told:.0f} seconds to go, {done:,} done'
            print(line, file=sys.stderr)  # Which does not mix with the JSON.

    def handle(self, *_: object) -> None:
        """Raise inside any operation, or use the connector there."""
        if self.over:
            return
        what = random.choice(HANDLERS)
        if what == 'raise' or not self.idle:
            raise InterruptError
        worker = self.idle.pop()
        if what == 'use':
            worker.work()
        else:
            worker.work_until_struck_by('interrupts')
        worker.counts['handlers'] += 1
        self.idle.append(worker)
        set_alarm()

    def set_exceptions(self) -> None:
        """Set exceptions in other threads, if they ask for them."""
        while True:
            ident = ctypes.c_ulong(self.armed.get())
            time.sleep(random.uniform(0, 300e-6))
            error = ctypes.py_object(InterruptError)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)

    def put_and_evict_a_batch(self) -> None:
        self.batch = self.connector.put_batch(BATCH)
        assert self.connector.get_batch(self.batch) == BATCH
        for key in self.batch:
            self.connector.evict(key)

    def visit(self, visitor: Worker, inside: Worker) -> None:
        """Work a bit in a thread that comes and goes."""

        def work() -> None:
            here.inside = inside
            visitor.work()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        visitor.counts['threads'] += 1

    def fork(self, worker: Worker) -> None:
        """Fork, and see that both sides can go on.

        The child touches nothing that other threads change but the connector:
        on a free-threaded build it might find it locked.
        """

        def work() -> None:
            signal.alarm(CHILD_PATIENCE)
            worker.work()
            worker.settle()
            assert not self.failures

        status = fork_inside(call, work)
        if FREE_THREADED and os.WIFSIGNALED(status):
            # A dict or list that another thread was about to change stays
            # locked inside, in the child, in CPython itself.
            worker.counts['hung children'] += 1
            return
        assert status == 0, f'the child ended with status {status}'
        worker.work()
        worker.counts['forks'] += 1

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        gc.collect()
        here.inside = None
        for error in self.failures:
            raise error
        implied: Counter[Any] = Counter()
        for worker in self.workers:
            worker.work()
            worker.settle()
            implied.update(worker.model.items())
        found = Counter(self.store.items())
        assert found == implied, f'{found - implied} and not {implied - found}'
        assert len(self.connector) == found.total()


def main() -> None:
    """Soak a connector."""
    parser = argparse.ArgumentParser()
    parser.add_argument('minutes', type=float)
    parser.add_argument(
        'lock', choices=ALL_LOCKS, default='default', nargs='?'
    )
    options = parser.parse_args()
    seconds = 60 * options.minutes
    faulthandler.dump_traceback_later(seconds + 2 * PATIENCE, exit=True)
    sys.setswitchinterval(1e-4)
    # What is tested here.
    warnings.simplefilter('ignore', DeprecationWarning)
    soak = Soak(seconds, options.lock)
    threading.excepthook = soak.fail
    sys.unraisablehook = soak.note_unraisable
    soak.run()
    soak.audit()
    print(json.dumps(sum((it.counts for it in soak.workers), Counter())))


if __name__ == '__main__':
    main()
