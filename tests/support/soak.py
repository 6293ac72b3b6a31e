"""A soak: faults strike threads at random, and an audit checks the contents.

    python -m tests.support.soak MINUTES [LOCK]

Threads use one connector. Signal handlers raise or use it, exceptions are set
in threads, finalizers use it, and every thread forks. Finalizers are
interrupted like everything else, and so is every second handler.

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
import weakref
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import repeat
from operator import call
from operator import not_
from queue import SimpleQueue
from typing import Any

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.locks import NoLock
from tests.support.locks import PATIENCE
from tests.support.operations import Model
from tests.support.operations import OPERATIONS
from tests.support.processes import fork_inside
from tests.support.processes import FREE_THREADED

# In place of the keys that an interrupted operation minted, or of the one.
UNKNOWN: Any = tuple(range(4))

MAIN = threading.get_ident()
FEW = 0.1 if FREE_THREADED else 0

# If this thread is to be interrupted soon.
here = threading.local()


class InterruptError(Exception):
    """What interrupts operations."""


class SlowKey(LocalKey):
    """A key that lets other threads run when it is compared, as equal.

    So they find the lock held. It is in C, so no finalizer runs meanwhile, and
    a signal handler only in the main thread, whose sleep a signal ends.
    """

    nap = partial(next, map(not_, map(time.sleep, repeat(0))))
    __eq__ = staticmethod(nap)
    __hash__ = LocalKey.__hash__


class Garbage:
    """A reference cycle whose finalizer uses the connector."""

    soak: Soak

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        self.soak.use('finalizers')


class Worker:
    """Does every operation, and knows exactly what must come of it.

    Its keys and values are its own, so that other workers do not change what
    it must find. An interrupt may come anywhere, so what is known is replaced
    in one step: the contents before the operation under way, and after it.
    """

    def __init__(self, soak: Soak) -> None:
        self.soak = soak
        self.keys = [soak.connector.new_key() for _ in UNKNOWN]
        self.name = self.keys[0].id.encode()  # All its values begin so.
        self.known: tuple[Model, Model] = {}, {}
        soak.workers.append(self)

    def work(self) -> None:
        """Check what came of the last time, and do each operation."""
        for error in self.soak.failures:
            raise error
        # Another one on the same dict, with the same lock.
        self.connector = LocalConnector(
            self.soak.store, include_data_in_config=True
        )
        self.settle()
        for key in self.known[0].keys() - self.keys:
            self.do('evict', (key,))  # It was put the last time.
        for name in random.sample([*OPERATIONS], k=len(OPERATIONS)):
            value = b'%s %d' % (self.name, random.getrandbits(64))
            number = random.randrange(len(self.keys))
            arguments = OPERATIONS[name].arguments(value, self.keys, number)
            self.do(name, arguments)
        self.contend(value)

    def do(self, name: str, arguments: Any) -> None:
        """Do an operation, and check its result."""
        before, model = self.known[0], OPERATIONS[name].model
        after = before.copy()
        model(after, UNKNOWN, *arguments)
        self.known = before, after
        result = getattr(self.connector, name)(*arguments)
        after = before.copy()
        expected = model(after, result, *arguments)
        assert OPERATIONS[name].whole or result == expected, (name, result)
        self.known = after, after

    def settle(self) -> None:
        """Check that the contents are as known, and replace what is known."""
        contents = self.connector.config()['store_dict'].items()
        found = {k: v for k, v in contents if v.startswith(self.name)}
        before, after = self.known
        # Which keys an interrupted operation minted is not known.
        completed = before is not after and (
            sorted(found.values()) == sorted(after.values())
        )
        assert completed or found == before, f'{found}, not {self.known}'
        self.known = found, found

    def contend(self, value: bytes) -> None:
        """Write what all workers write, and see one moment of it."""
        key, shared = self.soak.contended
        self.connector.set(key, b'')
        self.connector.evict(key)
        keys = [shared] * 1000
        # Without a GIL, a forked child would often find the dict locked.
        if not (FREE_THREADED or threading.get_ident() == MAIN):
            keys = [SlowKey(shared.id)] * 10
        self.connector.set(keys[0], value[::-1])
        values = self.connector.get_batch(keys)
        assert values == values[:1] * len(keys), f'torn: {set(values)}'


class Soak:
    """Faults that strike threads at work, and the audit in the end."""

    def __init__(self, seconds: float, lock: Any) -> None:
        self.end = time.monotonic() + seconds
        self.store: dict[Any, bytes] = {}
        self.connector = LocalConnector(
            self.store, include_data_in_config=True, lock=lock
        )
        # The second is there all the time, so that keys are compared to it.
        self.contended = self.connector.new_key(), self.connector.put(b'')
        self.failures: list[BaseException] = []
        self.counts: Counter[str] = Counter()
        self.workers: list[Worker] = []
        self.idle: list[Worker] = []
        # Threads in which an exception is to be set.
        self.armed: SimpleQueue[int] = SimpleQueue()
        self.garbage: Callable[[], object] = bool
        Garbage.soak = self

    def use(self, user: str) -> None:
        """Let a worker work that nobody uses now."""
        try:
            worker = self.idle.pop()
        except IndexError:
            worker = Worker(self)
        try:
            worker.work()
        finally:
            self.idle.append(worker)
        self.counts[user] += 1

    def work(self) -> None:
        """Use the connector until the end, and fork at times."""
        while time.monotonic() < self.end:
            here.armed = False
            try:
                # Without a condition: on 3.12 and 3.13, an interrupt at the
                # jump back to one is not caught here.
                while True:
                    if not here.armed:
                        here.armed = True
                        self.arm()
                    # Not faster than it is collected. Without a GIL, that is
                    # when there is much of it.
                    if not self.garbage() or random.random() < FEW:
                        self.garbage = weakref.ref(Garbage())
                    self.use('threads')
            except InterruptError:
                self.counts['interrupts'] += 1
            if random.random() < 0.05:
                self.fork()

    def arm(self) -> None:
        """Have this thread interrupted once, and soon."""
        if threading.get_ident() == MAIN:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 1e-3))
        else:
            self.armed.put(threading.get_ident())

    def strike(self) -> None:
        """Set an exception in each thread that asks for it."""
        while True:
            ident = self.armed.get()
            time.sleep(random.uniform(0, 1e-3))
            error = ctypes.c_ulong(ident), ctypes.py_object(InterruptError)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(*error)

    def handle(self, *_: object) -> None:
        """Handle a signal: raise, or use the connector, until the next one."""
        if random.random() < 0.5:
            raise InterruptError
        # An interrupt would end a deadlock of this one.
        alone = random.random() < 0.5
        if not alone:
            self.arm()
        self.use('handlers')
        if alone:
            self.arm()

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

    def fork(self) -> None:
        """Fork, and see that the child can go on."""

        def work() -> None:
            # Without a GIL, CPython itself may stay locked in a child.
            signal.alarm(2 if FREE_THREADED else PATIENCE // 2)
            self.use('children')

        status = fork_inside(call, work)
        hung = FREE_THREADED and os.WIFSIGNALED(status)
        assert hung or status == 0, f'the child ended with status {status}'
        self.counts['forks'] += 1
        self.counts['hung children'] += hung

    def run(self) -> None:
        """Let all threads work, this one too."""
        works = [self.strike, *[self.work] * 4]
        threads = [threading.Thread(target=it, daemon=True) for it in works]
        for thread in threads:
            thread.start()
        self.work()
        for thread in threads[1:]:
            thread.join()

    def audit(self) -> None:
        """Every operation works, and the contents are exactly as implied."""
        gc.disable()
        gc.collect()
        implied: Model = {}
        for worker in self.workers:
            worker.work()
            worker.settle()
            implied.update(worker.known[0])
        for key in self.contended:
            self.connector.evict(key)
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
    print(dict(soak.counts))


if __name__ == '__main__':
    main(*sys.argv[1:])
