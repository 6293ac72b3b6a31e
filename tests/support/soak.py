"""A soak: faults strike threads at random, and an audit checks the contents.

    python -m tests.support.soak MINUTES [LOCK]

Threads use one connector. Signal handlers raise or use it, exceptions are set
in threads, finalizers use it, and every thread forks. Handlers and finalizers
are interrupted like everything else.

Prints what it did. It exits with 1 if an operation was lost or done by half,
or if the contents in the end are not exactly what the operations imply. If it
hangs, it prints the stacks of all threads and exits with 1.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable
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

# In place of the keys that an interrupted operation minted, or of the one.
UNKNOWN: Any = tuple(range(4))


class InterruptError(Exception):
    """What interrupts operations."""


class Here(threading.local):
    """What each thread of the soak has of its own.

    None of it is shared: without a GIL, a forked child could find it locked.
    """

    soak: Soak | None = None  # In other threads, and until all is there.

    def enter(self, soak: Soak) -> None:
        """Let this thread be one of the soak."""
        self.idle: list[Worker] = []
        self.armed = False
        self.garbage: Callable[[], Garbage | None] = lambda: None
        self.random = random.Random()
        self.counts: Counter[str] = Counter()
        soak.counts.append(self.counts)
        self.soak = soak


here = Here()


class Garbage:
    """A reference cycle whose finalizer uses the connector."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        if here.soak is not None:
            here.soak.use('finalizers')


class Worker:
    """Does every operation, and knows exactly what must come of it.

    Its keys and values are its own, so that other workers do not change what
    it must find. An interrupt may come anywhere, so what is known is replaced
    in one step: what the completed operations imply, and the operation, if
    any, that has been started since, and so may be completed or not.
    """

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.keys = [soak.connector.new_key() for _ in UNKNOWN]
        self.name = self.keys[0].id.encode()  # All its values begin so.
        self.known: tuple[Model, Any] = {}, None
        soak.workers.append(self)

    def work(self) -> None:
        """Check what came of the last time, and do each operation."""
        # Another one on the same dict, with the same lock.
        self.connector = LocalConnector(
            self.soak.store, include_data_in_config=True
        )
        self.settle()
        for key in self.known[0].keys() - self.keys:
            self.do('evict', (key,))  # It was put the last time.
        names = [*OPERATIONS, 'set', 'get']
        here.random.shuffle(names)
        for name in names:
            if here.garbage() is None and gc.isenabled():
                # Not faster than it is collected.
                here.garbage = weakref.ref(Garbage())
            value = b'%s %d' % (self.name, here.random.getrandbits(64))
            number = here.random.randrange(len(self.keys))
            arguments = OPERATIONS[name].arguments(value, self.keys, number)
            self.do(name, arguments)
        for number in range(20):  # All workers do this, on one key.
            self.connector.set(self.soak.contended, b'%d' % number)
            if number % 5 == 0:
                self.connector.evict(self.soak.contended)

    def do(self, name: str, arguments: Any) -> None:
        """Do an operation, and check its result."""
        model = self.known[0].copy()
        self.known = self.known[0], (name, arguments)
        result = getattr(self.connector, name)(*arguments)
        expected = OPERATIONS[name].model(model, result, *arguments)
        assert OPERATIONS[name].whole or result == expected, (name, result)
        self.known = model, None
        here.counts['operations'] += 1

    def settle(self) -> None:
        """Check that the contents are as known, and replace what is known."""
        model, started = self.known
        found = {
            key: value
            for key, value in self.connector.config()['store_dict'].items()
            if value.startswith(self.name)
        }
        if started is None:
            assert found == model, f'{found} and not {model}'
        else:
            name, arguments = started
            after = model.copy()
            OPERATIONS[name].model(after, UNKNOWN, *arguments)
            either = sorted(model.values()), sorted(after.values())
            assert sorted(found.values()) in either, (name, found, model)
        self.known = found, None


class Soak:
    """Faults that strike threads at work, and the audit in the end."""

    def __init__(self, seconds: float, lock: Any) -> None:
        self.end = time.monotonic() + seconds
        self.store: dict[Any, bytes] = {}
        self.connector = LocalConnector(
            self.store, include_data_in_config=True, lock=lock
        )
        self.contended = self.connector.new_key()
        self.failures: list[BaseException] = []
        self.workers: list[Worker] = []
        self.counts: list[Counter[str]] = []
        # Threads in which an exception is to be set.
        self.armed: list[int] = []

    def use(self, user: str) -> None:
        """Let a worker work that nobody in this thread uses now."""
        idle = here.idle
        worker = idle.pop() if idle else Worker(self)
        try:
            worker.work()
        finally:
            idle.append(worker)
        here.counts[user] += 1

    def arm(self) -> None:
        """Have this thread interrupted once, and soon."""
        if threading.current_thread() is threading.main_thread():
            delay = here.random.uniform(10e-6, 1e-3)
            signal.setitimer(signal.ITIMER_REAL, delay)
        else:
            self.armed.append(threading.get_ident())

    def handle(self, *_: object) -> None:
        """Handle a signal: raise, or use the connector, until the next one."""
        if here.random.random() < 0.5:
            raise InterruptError
        self.arm()
        self.use('handlers')

    def fail(self, uncaught: Any) -> None:
        """Note an error in a thread or a finalizer, to end the soak.

        An interrupt goes no further than a finalizer, so another one has to
        follow; not here, where it would be lost.
        """
        in_finalizer = hasattr(uncaught, 'object')
        if in_finalizer and isinstance(uncaught.exc_value, InterruptError):
            here.armed = False
        else:
            self.failures.append(uncaught.exc_value)
            traceback.print_exception(uncaught.exc_value)

    def work_until_interrupted(self, interrupt: str) -> None:
        """Use the connector until an interrupt comes, and fork at times."""
        here.armed = False
        try:
            # Without a condition: on 3.12 and 3.13, an interrupt at the jump
            # back to one is not caught here.
            while True:
                if not here.armed:
                    here.armed = True
                    self.arm()
                self.use('threads')
        except InterruptError:
            here.counts[interrupt] += 1
        if here.random.random() < 0.05:
            self.fork()

    def fork(self) -> None:
        """Fork, and see that the child can go on."""

        def work() -> None:
            # Without a GIL, CPython itself may stay locked in a child.
            signal.alarm(2 if FREE_THREADED else PATIENCE // 2)
            self.use('children')
            assert not self.failures

        status = fork_inside(call, work)
        hung = FREE_THREADED and os.WIFSIGNALED(status)
        assert hung or status == 0, f'the child ended with status {status}'
        here.counts['forks'] += 1
        here.counts['hung children'] += hung

    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.failures

    def work(self) -> None:
        """Work until the end, where exceptions are set in this thread."""
        here.enter(self)
        while self.goes_on():
            self.work_until_interrupted('async_exceptions')

    def work_slowly(self) -> None:
        """Let the other threads run inside operations, until the end.

        The keys do that when they are compared, so others find the lock held
        and their reads disturbed. In this thread finalizers do nothing, as one
        that used the connector there would deadlock.
        """

        def slow(key: Any) -> Any:
            # Without a GIL, threads run inside operations anyway, and a forked
            # child would often find the dict locked.
            if FREE_THREADED:
                return key
            return hooked(key, partial(time.sleep, 0))

        key = self.connector.put(b'slow')
        keys = [slow(self.contended)] * (1000 if FREE_THREADED else 10)
        while self.goes_on():
            self.connector.set(slow(key), b'slow')
            values = self.connector.get_batch(keys)
            assert values == values[:1] * len(keys), f'torn: {set(values)}'
            time.sleep(0.005)
        self.connector.evict(key)

    def run(self) -> None:
        """Let all threads work, and set exceptions in them."""
        here.enter(self)
        threads = [
            threading.Thread(target=work, daemon=True)
            for work in [*[self.work_slowly] * 2, *[self.work] * 5]
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            self.work_until_interrupted('interrupts')
            while self.armed:
                ident = ctypes.c_ulong(self.armed.pop())
                error = ctypes.py_object(InterruptError)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        gc.disable()
        gc.collect()
        for error in self.failures:
            raise error
        implied: Model = {}
        for worker in self.workers:
            worker.work()
            worker.settle()
            implied.update(worker.known[0])
        self.connector.evict(self.contended)
        assert self.store == implied, f'{self.store} and not {implied}'


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
    soak.run()
    soak.audit()
    print(dict(sum(soak.counts, Counter())))


if __name__ == '__main__':
    main(*sys.argv[1:])
