"""Faults by the thousand, all at once, and an exact audit in the end.

    python -m tests.support.soak MINUTES [LOCK]

Threads use one connector. Signal handlers raise or use it, exceptions are set
in threads, finalizers run, and the process forks from any thread. What strikes
operations strikes handlers and finalizers as well.

Prints what it did. It exits with 1, and the stacks of all threads, if an
operation hung, was lost or done by half, or if the contents in the end are not
exactly what the completed operations imply.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import queue
import random
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from functools import partial
from operator import call
from typing import Any

from proxystore_local import LocalConnector
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import Model
from tests.support.operations import OPERATIONS
from tests.support.processes import fork_inside
from tests.support.processes import FREE_THREADED
from tests.support.scenes import hooked

# Put again and again by one thread, which evicts it from first to last.
BATCH = [b'batch %d' % number for number in range(5)]

# In place of the keys that an interrupted operation minted, or of the one.
UNKNOWN: Any = tuple(range(4))


class InterruptError(Exception):
    """What interrupts operations."""


class Here(threading.local):
    """What a thread keeps: the worker and the garbage for finalizers in it."""

    inside: Worker | None = None
    litter: Any = staticmethod(bool)  # Or a weak reference.
    swallowed = False  # An interrupt ended in a finalizer.


here = Here()


class Litter:
    """Cyclic garbage, which uses the connector when it is finalized."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self: object) -> None:  # The weak reference calls it as well.
        worker = here.inside
        if worker is not None:
            here.inside = None  # For the finalizers inside this one.
            try:
                worker.work()
                worker.counts['finalizers'] += 1
            finally:
                here.inside = worker


class Worker:
    """Runs every operation, and knows exactly what must come of it.

    Its keys and values are its own, so that other threads do not change what
    it must find. It logs an operation, and its result when it has returned: so
    after an interrupt there is one at most that was done or not. An interrupt
    may come anywhere: settle() changes what is known at one stroke.
    """

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.name = b'%d ' % len(soak.workers)  # All its values begin so.
        self.keys = [soak.connector.new_key() for _ in UNKNOWN]
        self.known: tuple[Model, list[Any], list[Any]] = {}, [], []
        # Neither is shared: a child would find it locked, without a GIL.
        self.random = random.Random(self.name)
        self.counts: Counter[str] = Counter()

    def work(self) -> None:
        """Check what came of the last time, and do each operation."""
        connector = self.soak.connect()
        self.settle(connector)
        model, log, results = self.known
        for key in model.keys() - self.keys:  # It was put the last time.
            log.append(('evict', (key,)))
            connector.evict(key)
            results.append(None)
        names = [*OPERATIONS, 'set', 'get']
        self.random.shuffle(names)
        for name in names:
            if not here.litter():  # Not faster than it is collected.
                here.litter = weakref.ref(Litter(), Litter.__del__)
            value = b'%s%d' % (self.name, self.random.getrandbits(64))
            number = self.random.randrange(len(self.keys))
            arguments = OPERATIONS[name].arguments(value, self.keys, number)
            log.append((name, arguments))
            results.append(getattr(connector, name)(*arguments))
        # Of the batch all is there, but what has been evicted in order.
        first, *others = self.soak.batch
        between: list[Any] = []
        if self.soak.lock is not None:  # Nobody comes into the default one.
            between = [hooked(it, partial(time.sleep, 0)) for it in self.keys]
        for values in (
            connector.get_batch([first, *between, *others]),
            connector.config()['store_dict'].values(),
        ):
            seen = [value for value in values if value in BATCH]
            assert seen == BATCH[len(BATCH) - len(seen) :], seen

    def settle(self, connector: LocalConnector) -> None:
        """See that results and contents are as the log implies."""
        model, log, results = self.known
        model = model.copy()
        for (name, arguments), result in zip(log, results):
            expected = OPERATIONS[name].model(model, result, *arguments)
            assert OPERATIONS[name].whole or result == expected, (name, result)
        found = {
            key: value
            for key, value in connector.config()['store_dict'].items()
            if value.startswith(self.name)
        }
        if len(results) < len(log):
            name, arguments = log[-1]
            after = model.copy()
            OPERATIONS[name].model(after, UNKNOWN, *arguments)
            either = sorted(model.values()), sorted(after.values())
            assert sorted(found.values()) in either, (name, found, model)
        else:
            assert found == model, f'{found} and not {model}'
        self.known = found, [], []
        self.counts['operations'] += len(results)


class Soak:
    """Faults that strike threads at work, and the audit in the end."""

    def __init__(self, seconds: float, lock: Any) -> None:
        self.end = time.monotonic() + seconds
        self.lock = lock
        self.store: dict[Any, bytes] = {}
        self.connector = LocalConnector(self.store, lock=lock)
        self.batch = [self.connector.new_key()]
        self.failures: list[BaseException] = []
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
        """End the soak, and say why; but an interrupt ends in a finalizer."""
        struck = isinstance(uncaught.exc_value, InterruptError)
        if struck and hasattr(uncaught, 'object'):
            here.swallowed = True
        else:
            self.failures.append(uncaught.exc_value)
            traceback.print_exception(uncaught.exc_value)

    def handle(self, *_: object) -> None:
        """Handle a signal: use the connector, until struck or not, or raise.

        Whoever uses it has to come back by itself.
        """
        what = random.choice(['use', 'use until struck', 'raise'])
        if what == 'raise' or not self.idle:
            raise InterruptError
        worker = self.idle.pop()
        if what == 'use':
            worker.work()
        else:
            self.interrupts(worker)
        worker.counts['handlers'] += 1
        self.idle.append(worker)
        set_alarm()

    def strike(self, fault: Any, worker: Worker, inside: Worker) -> None:
        here.inside = inside
        fault(worker)
        worker.counts[fault.__name__] += 1

    def loop(self) -> None:
        """Let faults strike this thread, and others that come and go."""
        faults = [self.interrupts, self.forks, self.batches]
        faults += [self.async_exceptions, self.async_exceptions]
        main, *others = [(it, self.worker(), self.worker()) for it in faults]
        threads = [threading.Thread() for _ in others]
        over = False
        while not over or any(thread.is_alive() for thread in threads):
            over = bool(self.failures) or time.monotonic() > self.end
            for number, given in enumerate(others):
                if not over and not threads[number].is_alive():
                    threads[number] = threading.Thread(
                        target=self.strike, args=given, daemon=True
                    )
                    threads[number].start()
            self.strike(*main)
            if random.random() < 0.02:
                self.strike(self.forks, *main[1:])
            while not self.armed.empty():
                ident = ctypes.c_ulong(self.armed.get())
                error = ctypes.py_object(InterruptError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)

    # The faults.

    def interrupts(self, worker: Worker) -> None:
        self.until_struck(worker, set_alarm)

    def async_exceptions(self, worker: Worker) -> None:
        ident = threading.get_ident()
        self.until_struck(worker, partial(self.armed.put, ident))

    def until_struck(self, worker: Worker, arm: Any) -> None:
        try:
            arm()
            # Not by a condition of the loop: on 3.12 and 3.13 an interrupt
            # at the jump back to that is not caught here.
            while True:
                if here.swallowed:
                    here.swallowed = False
                    break
                worker.work()
        except InterruptError:
            pass

    def forks(self, worker: Worker) -> None:
        """Fork, and see that both sides can go on.

        The child touches nothing that other threads change but the connector.
        What another thread was about to change may stay locked in the child,
        in CPython itself, if it has no GIL.
        """

        def work() -> None:
            signal.alarm(2 if FREE_THREADED else PATIENCE // 2)
            worker.work()
            worker.settle(self.connect())
            assert not self.failures

        status = fork_inside(call, work)
        hung = FREE_THREADED and os.WIFSIGNALED(status)
        assert hung or status == 0, f'the child ended with status {status}'
        worker.counts['hung children'] += hung
        worker.work()

    def batches(self, worker: Worker) -> None:
        for _ in range(1000):
            self.batch = self.connector.put_batch(BATCH)
            assert self.connector.get_batch(self.batch) == BATCH
            for key in self.batch:
                self.connector.evict(key)

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        gc.collect()
        here.inside = None
        for error in self.failures:
            raise error
        implied: Counter[Any] = Counter()
        for worker in self.workers:
            worker.work()
            worker.settle(self.connect())
            implied.update(worker.known[0].items())
        found = Counter(self.store.items())
        assert found == implied, f'{found - implied} and not {implied - found}'
        assert len(self.connector) == found.total()


def set_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(10e-6, 300e-6))


def main(minutes: str, lock: str = 'default') -> None:
    """Soak a connector, and say what it went through."""
    seconds = 60 * float(minutes)
    faulthandler.dump_traceback_later(seconds + 2 * PATIENCE, exit=True)
    soak = Soak(seconds, {**LOCKS, 'NoLock': NoLock}[lock]())
    threading.excepthook = sys.unraisablehook = soak.fail
    signal.signal(signal.SIGALRM, soak.handle)
    # Free-threaded builds wait for more, unless the second is 0.
    gc.set_threshold(5, 0 if FREE_THREADED else 10)
    gc.freeze()  # So that a collection is as short as an operation.
    sys.setswitchinterval(1e-4)
    soak.loop()
    soak.audit()
    print(dict(sum((it.counts for it in soak.workers), Counter())))


if __name__ == '__main__':
    main(*sys.argv[1:])
