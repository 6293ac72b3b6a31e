"""Scenes: one thread is in the middle of an operation, and another tries.

The schedules here are deterministic. A thread that is half way through an
operation stays there until another thread has done what it wants to do, or
has found that it must wait.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from contextlib import nullcontext
from functools import partial
from typing import Any
from typing import TypeAlias
from typing import TypeVar
from unittest import mock

from proxystore_local import connector as connector_module
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local import seqlocked
from tests.support.locks import default
from tests.support.locks import LockMaker
from tests.support.locks import PATIENCE
from tests.support.locks import ReportingLock
from tests.support.operations import A
from tests.support.operations import B
from tests.support.operations import CONTENTS
from tests.support.operations import OPERATIONS

T = TypeVar('T')
Hook: TypeAlias = Callable[[], object]

# Operations that can be stopped half way: those on keys.
STOPPABLE = [name for name, it in OPERATIONS.items() if not it.whole]


class HookedKey(LocalKey):
    """A key that calls a hook when it is compared: inside an operation.

    It equals the LocalKey of the same id. When that is in the dict, an
    operation on this key compares the two, and so the hook runs in the middle
    of the operation, while the lock is held.
    """

    hook: Hook

    def __eq__(self, other: object) -> bool:
        self.hook()
        return tuple.__eq__(self, other)

    __hash__ = LocalKey.__hash__


class FreedKey(HookedKey):
    """A key that calls a hook when it is freed instead: inside evict."""

    __eq__ = LocalKey.__eq__
    __hash__ = LocalKey.__hash__

    def __del__(self) -> None:
        self.hook()


def hooked(
    key: LocalKey,
    hook: Hook,
    kind: type[HookedKey] = HookedKey,
) -> HookedKey:
    """Make a key that equals another and calls a hook."""
    made = kind(key.id)
    made.hook = hook
    return made


def once(*hooks: Hook) -> Hook:
    """Call a hook the first time only; or one hook each time, in order."""
    calls = iter(hooks)

    def call() -> None:
        next(calls, bool)()

    return call


def minted(keys: Sequence[LocalKey]) -> AbstractContextManager[object]:
    """Let put() mint the first of some keys, and put_batch() all of them."""
    return mock.patch.multiple(
        connector_module,
        mint=lambda: keys[0],
        mint_batch=lambda count: [*keys[:count]],
    )


def start(work: Callable[[], T]) -> Future[T]:
    """Do something in a thread of its own, for which no exit waits."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def assert_free(connector: LocalConnector) -> None:
    """Every operation works, from another thread and from this one."""

    def use() -> None:
        for operation in OPERATIONS.values():
            operation(connector)
        connector.set(A, b'0')
        assert connector.get(A) == b'0'

    # First in a thread: this one may hold a lock that is reentrant.
    for _ in range(2):
        start(use).result(PATIENCE)
        use()


class Scene:
    """A connector with threads in the middle of operations on it.

    with Scene() as scene:
        first = scene.stop('put_batch')
        how_far, second = scene.attempt(lambda: scene.connector.get(A))
        assert how_far == 'blocked'
    assert second.result() == b'a0'

    Args:
        make_lock: Makes the lock.

    Attributes:
        store: The dict.
        connector: Connector on it.
        on_block: Called by threads before they wait: tells attempt().
        on_wait: What threads do in place of a sleep as they wait for the
            connector's own lock: on_block(), and wait until all have left.
    """

    def __init__(self, make_lock: LockMaker = default) -> None:
        self.reports: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.left = threading.Event()
        self.threads: list[Future[Any]] = []
        self.on_block: Hook = lambda: self.reports.put('blocked')
        self.on_wait: Hook = self.wait_for_all_to_leave

        # Either may be replaced later.
        def block() -> None:
            self.on_block()

        def wait(_: float) -> None:
            self.on_wait()

        self.patch = mock.patch.object(seqlocked, 'sleep', wait)
        self.store = dict(CONTENTS)
        self.connector = LocalConnector(
            self.store,
            include_data_in_config=True,
            lock=make_lock(lock_factory=partial(ReportingLock, block)),
        )

    def wait_for_all_to_leave(self) -> None:
        self.on_block()
        assert self.left.wait(PATIENCE), 'whoever is inside never left'

    def __enter__(self) -> Scene:
        self.patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.leave()
        finally:
            self.patch.stop()

    def stop(self, name: str) -> Future[Any]:
        """Have a thread in the middle of an operation, until all leave.

        Args:
            name: Name of the operation, one of STOPPABLE. One on a single key
                is on B. A batch has other keys before and after it: get_batch
                A, and put_batch new ones.
        """
        inside = threading.Event()

        def stay() -> None:
            inside.set()
            assert self.left.wait(PATIENCE), 'was never let go'

        key = hooked(B, once(stay))
        keys = [A, key, A]
        mints = {
            'put': minted([key]),
            'put_batch': minted([LocalKey('new'), key, LocalKey('newer')]),
        }

        def work() -> Any:
            if name == 'evict':  # It compares before it acquires the lock.
                keys[1] = B
                # Made by the thread that frees it, or else, without a GIL,
                # it is freed later.
                self.store[hooked(B, stay, FreedKey)] = self.store.pop(B)
            with mints.get(name, nullcontext()):
                return OPERATIONS[name](self.connector, keys=keys, number=1)

        self.threads.append(start(work))
        assert inside.wait(PATIENCE), f'{name} was never half way'
        return self.threads[-1]

    def attempt(self, work: Callable[[], T]) -> tuple[str, Future[T]]:
        """Try something in a thread, until it ends or waits.

        Returns:
            How far it got: `done`, or `blocked`; and what comes of it.
        """
        future = start(work)
        self.threads.append(future)
        future.add_done_callback(lambda _: self.reports.put('done'))
        return self.reports.get(timeout=PATIENCE), future

    def leave(self) -> None:
        """Let the threads go on, and wait for them to end."""
        self.left.set()
        for thread in self.threads:
            thread.result(PATIENCE)
