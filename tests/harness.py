"""Seams to stop a thread inside an operation, and locks that do too little.

The schedules here are deterministic: a thread that is half way through an
operation stays there until another thread has done what it wants to do, or
has found that it must wait.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

from proxystore_local import connector as connector_module
from proxystore_local import guarded
from proxystore_local import LocalKey
from proxystore_local.rwlocked import RWLock

# Seconds after which a thread that nobody answers gives up.
PATIENCE = 30


def default(lock_factory: object = None) -> None:
    """Choose the connector's own lock; see Meeting for how that is watched."""


# How to make what a connector takes as its lock.
LOCKS: dict[str, Callable[..., RWLock | None]] = {
    'default': default,
    'RWLockFair': RWLockFair,
    'RWLockFairD': RWLockFairD,
    'RWLockRead': RWLockRead,
    'RWLockReadD': RWLockReadD,
    'RWLockWrite': RWLockWrite,
    'RWLockWriteD': RWLockWriteD,
}


class NoLock(RWLockFair):
    """A lock that does nothing: what it guards, threads reach at any time."""

    def gen_rlock(self) -> Any:
        return contextlib.nullcontext()

    def gen_wlock(self) -> Any:
        return contextlib.nullcontext()


class Mutex(RWLockFair):
    """A lock that lets only one thread inside, be it a reader or a writer."""

    def __init__(self, lock_factory: Callable[[], Any]) -> None:
        self.mutex = lock_factory()

    def gen_rlock(self) -> Any:
        return self.mutex

    def gen_wlock(self) -> Any:
        return self.mutex


class HookedKey(LocalKey):
    """A key that calls a hook when it is compared: inside an operation.

    It equals the LocalKey of the same id. When that is in the dict, an
    operation on this key compares the two, and so the hook runs in the middle
    of the operation, while the lock is held.
    """

    hook: Callable[[], object]

    def __eq__(self, other: object) -> bool:
        self.hook()
        return tuple.__eq__(self, other)

    __hash__ = LocalKey.__hash__


def hooked(key: LocalKey, hook: Callable[[], object]) -> HookedKey:
    """Make a key that equals another and calls a hook when compared."""
    made = HookedKey(key.id)
    made.hook = hook
    return made


def once(hook: Callable[[], object]) -> Callable[[], object]:
    """Call a hook the first time only."""
    calls = iter([hook])

    def call() -> None:
        next(calls, bool)()

    return call


@contextlib.contextmanager
def minted(keys: Sequence[LocalKey]) -> Iterator[None]:
    """Let put() mint the first of some keys, and put_batch() all of them."""
    with mock.patch.multiple(
        connector_module,
        mint=lambda: keys[0],
        mint_batch=lambda count: [*keys[:count]],
    ):
        yield


class ReportingLock:
    """A lock that reports a thread that is about to block on it.

    Args:
        lock: The lock that does the work.
        report: Called, before it blocks, by a thread that has to.
    """

    def __init__(self, lock: Any, report: Callable[[], object]) -> None:
        self._lock = lock
        self._report = report
        self.release = lock.release

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if not blocking:
            return False
        self._report()
        return bool(self._lock.acquire(blocking, timeout))

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def reported_waits(
    report: Callable[[], object],
    left: threading.Event,
) -> Iterator[None]:
    """Report threads that wait for the connector's own lock.

    Args:
        report: Called by a thread that is about to wait.
        left: Set when whoever is inside has left: how long to wait.
    """

    def sleep(_: float) -> None:
        report()
        assert left.wait(PATIENCE), 'whoever is inside never left'

    with mock.patch.object(guarded, 'sleep', sleep):
        yield


class Meeting:
    """Runs one operation in the middle of another, on another thread.

    Locks of `readerwriterlock` must be made of the locks that `make_lock`
    makes, so that they report to it.
    """

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[str] = queue.SimpleQueue()

    def make_lock(self) -> ReportingLock:
        return ReportingLock(threading.Lock(), self._report_blocked)

    def _report_blocked(self) -> None:
        self._reports.put('blocked')

    def run(
        self,
        first: Callable[[Callable[[], object]], object],
        second: Callable[[], object],
    ) -> tuple[str, object, object]:
        """Start `second` when `first` is half way, until it ends or waits.

        Args:
            first: Operation, run by the calling thread. It is given a hook to
                call when it is half way.
            second: Operation, run by another thread.

        Returns:
            How far `second` got while `first` was half way (`done`, or \
            `blocked`), and what each of the two returned.
        """
        met: list[str] = []
        results: list[object] = []
        left = threading.Event()

        def run_second() -> None:
            try:
                results.append(second())
            finally:
                self._reports.put('done')

        thread = threading.Thread(target=run_second, daemon=True)

        @once
        def meet() -> None:
            thread.start()
            met.append(self._reports.get(timeout=PATIENCE))

        with reported_waits(self._report_blocked, left):
            try:
                result = first(meet)
            finally:
                left.set()
            assert met, 'the first operation was never half way'
            thread.join(PATIENCE)
        assert not thread.is_alive(), 'the second operation never ended'
        return met[0], result, results[0]


def load(path: Path) -> Any:
    """Run a file as a module that nobody else has.

    Args:
        path: File to run.

    Returns:
        The module.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(script: Path, *modules: str) -> str:
    """Get code that runs a script where modules are not installed.

    Args:
        script: Script to run.
        modules: Names of the modules.

    Returns:
        A program for `python -c`.
    """
    return (
        'import runpy, sys; '
        f'sys.modules.update(dict.fromkeys({modules!r})); '
        f'sys.argv[0] = {str(script)!r}; '
        f'runpy.run_path({str(script)!r}, run_name="__main__")'
    )


def run_storm(
    storm: str,
    lock: str = 'default',
    *,
    seconds: float | None = None,
    patience: float = 60,
) -> tuple[int, str]:
    """Run a storm of faults in a process of its own, see tests/storms.py.

    Args:
        storm: Name of the storm.
        lock: Name of the lock, see LOCKS.
        seconds: How long it storms. If not specified, the environment's
            FAULT_SECONDS, or else one second.
        patience: Seconds after which it counts as hanging.

    Returns:
        Its exit code, and what it printed.
    """
    if seconds is None:
        seconds = float(os.environ.get('FAULT_SECONDS', '1'))
    ended = subprocess.run(
        [sys.executable, '-m', 'tests.storms', storm, lock, str(seconds)],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, 'STORM_PATIENCE': str(patience)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout
