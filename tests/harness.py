"""Locks and dicts that tell what threads do with them.

The schedules here are deterministic: a thread that is half way through an
operation stays there until another thread has either got inside as well, or
is about to block on a lock that somebody else holds.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import queue
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from readerwriterlock.rwlock import RWLockFair
from readerwriterlock.rwlock import RWLockFairD
from readerwriterlock.rwlock import RWLockRead
from readerwriterlock.rwlock import RWLockReadD
from readerwriterlock.rwlock import RWLockWrite
from readerwriterlock.rwlock import RWLockWriteD

from proxystore_local import locks
from proxystore_local.keys import LocalKey
from proxystore_local.locks import BigReaderLock
from proxystore_local.locks import ReaderWriterLock

# Seconds after which a thread that nobody answers gives up.
PATIENCE = 30


def big_reader_lock(lock_factory: object = None) -> BigReaderLock:
    """Make our lock; what its locks are made by is patched, see Meeting."""
    return BigReaderLock()


LOCKS: dict[str, Callable[..., ReaderWriterLock]] = {
    'BigReaderLock': big_reader_lock,
}
LOCKS |= {
    kind.__name__: kind
    for kind in (
        RWLockFair,
        RWLockFairD,
        RWLockRead,
        RWLockReadD,
        RWLockWrite,
        RWLockWriteD,
    )
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


class ReportingLock:
    """A lock that reports a thread that is about to block on it.

    Args:
        lock: The lock that does the work.
        report: Called, before it blocks, by a thread that has to.
    """

    def __init__(self, lock: Any, report: Callable[[], object]) -> None:
        self._lock = lock
        self._report = report
        # In C, if it is: nothing can come in the middle of it.
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
def instrumented_locks(report: Callable[[], object]) -> Iterator[None]:
    """Let our lock make ReportingLocks while this is entered.

    Args:
        report: Called by a thread that is about to block.
    """
    instrumented = types.SimpleNamespace(
        RLock=lambda: ReportingLock(threading.RLock(), report),
        get_ident=threading.get_ident,
        local=threading.local,
    )
    with mock.patch.object(locks, 'threading', instrumented):
        yield


class SteppingDict(dict[LocalKey, bytes]):
    """A dict whose operations stop half way to call a hook.

    Reads stop once for each key they have read, writes once for each key that
    they have written. Without a lock around it, this shows what on a plain
    dict would only be shown by a rare switch of threads.
    """

    def __init__(self, hook: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.hook = hook

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self.hook()
        return found

    def __getitem__(self, key: LocalKey) -> bytes:
        value = super().__getitem__(key)
        self.hook()
        return value

    # An overridden __iter__() makes dict(self) go through keys().
    def __iter__(self) -> Iterator[LocalKey]:
        return iter(self.keys())

    def __len__(self) -> int:
        count = super().__len__()
        self.hook()
        return count

    def __setitem__(self, key: LocalKey, value: bytes) -> None:
        super().__setitem__(key, value)
        self.hook()

    def get(self, key: LocalKey, default: Any = None) -> Any:
        value = super().get(key, default)
        self.hook()
        return value

    def keys(self) -> Any:
        return list(super().keys())

    def pop(self, key: LocalKey, *default: Any) -> Any:
        value = super().pop(key, *default)
        self.hook()
        return value

    def update(self, other: dict[LocalKey, bytes]) -> None:  # type: ignore[override]
        for key, value in other.items():
            self[key] = value


class Meeting:
    """Runs one operation in the middle of another, on another thread.

    The lock of `readerwriterlock` that guards its dict must be made of the
    locks that `make_lock` makes, so that they report to it. Ours is made of
    such locks while a Meeting is entered.
    """

    def __init__(self) -> None:
        self._reports: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.store = SteppingDict()

    def make_lock(self) -> ReportingLock:
        return ReportingLock(threading.Lock(), self._report_blocked)

    def _report_blocked(self) -> None:
        self._reports.put('blocked')

    def __enter__(self) -> Meeting:
        self._instrumented = instrumented_locks(self._report_blocked)
        self._instrumented.__enter__()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._instrumented.__exit__(*exc_info)

    def run(
        self,
        first: Callable[[], object],
        second: Callable[[], object],
    ) -> tuple[str, object, object]:
        """Start `second` when `first` is half way, and wait until it stops.

        Args:
            first: Operation on the dict, run by the calling thread.
            second: Operation on the dict, run by another thread.

        Returns:
            How far `second` got while `first` was half way (`inside` the \
            dict, `blocked` on a lock, or `done` without ever stopping), and \
            what each of the two returned.
        """
        met: list[str] = []
        results: list[object] = []

        def run_second() -> None:
            results.append(second())
            self._reports.put('done')

        thread = threading.Thread(target=run_second, daemon=True)

        def hook() -> None:
            if threading.current_thread() is thread:
                self._reports.put('inside')
            elif not met:
                thread.start()
                met.append(self._reports.get(timeout=PATIENCE))
                # Whoever is not kept out does all it wants to do now.
                report = met[0]
                while report == 'inside':
                    report = self._reports.get(timeout=PATIENCE)

        self.store.hook = hook
        result = first()
        thread.join(PATIENCE)
        assert not thread.is_alive(), 'the second operation never ended'
        self.store.hook = lambda: None
        return met[0], result, results[0]


def interrupted_at(
    point: int,
    error: BaseException,
    work: Callable[[], object],
) -> bool:
    """Do something, and interrupt it at a point where an interrupt can come.

    That is when a call from the lock's code has returned, or when a function
    of it is entered. Backward jumps are not reached by this.

    Returns:
        If there was such a point.
    """
    reached = 0

    def profile(frame: Any, event: str, _: object) -> None:
        nonlocal reached
        if event == 'return':  # From a function that stands for one in C.
            caller, callee = frame.f_back, frame
            if caller is None or callee.f_code.co_filename == locks.__file__:
                return
        elif event in ('call', 'c_return'):
            caller = frame
        else:
            return
        if caller.f_code.co_filename == locks.__file__:
            reached += 1
            if reached == point:
                sys.setprofile(None)
                raise error

    raised: list[BaseException] = []
    # What the collector calls, such as callbacks of weak references, would
    # count as a point too, and what is raised there is not passed on.
    gc.disable()
    sys.setprofile(profile)
    try:
        work()
    except BaseException as caught:
        raised.append(caught)
    finally:
        sys.setprofile(None)
        gc.enable()
    interrupted = reached == point
    assert raised == ([error] if interrupted else [])
    return interrupted


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
    lock: str = 'BigReaderLock',
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
