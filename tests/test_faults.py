"""An exception after each call on a lock, one by one, does no harm.

An interrupt comes when a call on a lock has returned, or while it blocks. So
for each operation, in each situation that it can meet another thread in, every
such moment is tried in turn.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from proxystore_local import LocalConnector
from proxystore_local import locks
from tests.checks import A
from tests.checks import B
from tests.harness import PATIENCE
from tests.harness import SteppingDict
from tests.test_interrupts import assert_free

OLD = {A: b'old', B: b'old'}
NEW = {A: b'new', B: b'old'}

# More than an operation has.
MOMENTS = 100


class Faults:
    """Raises an error at one moment of the main thread, once.

    Args:
        moment: How many moments to let pass.
        error: What to raise then.

    Attributes:
        about_to_block: Called when the main thread is about to block.
        armed: If the moments count.
        struck: If it has raised the error.
    """

    def __init__(self, moment: int, error: BaseException) -> None:
        self.left = moment
        self.error = error
        self.about_to_block: Callable[[], object] = bool
        self.armed = False
        self.struck = False

    def strike(self) -> None:
        if not self.armed or threading.current_thread() is not MAIN:
            return
        # No interrupt comes between calls that C code makes in a row.
        if sys._getframe(2).f_code is locks.BigReaderLock._let_go.__code__:
            return
        self.left -= 1
        if self.left < 0:
            self.armed = False
            self.struck = True
            raise self.error


MAIN = threading.main_thread()


class FaultyLock:
    """A lock whose calls may end in an interrupt."""

    def __init__(self, faults: Faults) -> None:
        self.lock = threading.RLock()
        self.faults = faults

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        taken = self.lock.acquire(False)
        if not taken and blocking:
            if threading.current_thread() is MAIN:
                self.faults.about_to_block()
            self.faults.strike()
            taken = self.lock.acquire(True, timeout)
        self.faults.strike()
        return taken

    def release(self) -> None:
        self.lock.release()
        self.faults.strike()


class Scene:
    """A connector, and threads that linger inside its operations."""

    def __init__(self, faults: Faults) -> None:
        faults.about_to_block = self.let_leave
        self.store = SteppingDict()
        self.store.update(OLD)
        self.connector = LocalConnector(
            self.store,
            include_data_in_config=True,
        )
        self.inside: dict[str, threading.Event] = {}
        self.leave: dict[str, threading.Event] = {}
        self.threads: list[threading.Thread] = []
        self.within: Callable[[], object] = bool
        self.store.hook = self.hook

    def hook(self) -> None:
        name = threading.current_thread().name
        if name in self.inside:
            self.inside[name].set()
            assert self.leave[name].wait(PATIENCE)
        elif threading.current_thread() is MAIN:
            within, self.within = self.within, bool
            within()

    def linger(
        self, name: str, work: Callable[..., Any], *arguments: Any
    ) -> None:
        """Have a thread inside an operation."""
        self.inside[name] = threading.Event()
        self.leave[name] = threading.Event()
        thread = threading.Thread(
            target=work,
            args=arguments,
            name=name,
            daemon=True,
        )
        self.threads.append(thread)
        thread.start()
        assert self.inside[name].wait(PATIENCE)

    def let_leave(self) -> None:
        for leave in self.leave.values():
            leave.set()


def nobody(scene: Scene) -> None:
    pass


def a_reader_at_the_gate(scene: Scene) -> None:
    scene.linger('at the gate', scene.connector.get, A)


def a_reader_beside(scene: Scene) -> None:
    a_reader_at_the_gate(scene)
    scene.linger('beside', scene.connector.get, A)
    scene.leave['at the gate'].set()
    scene.threads[0].join(PATIENCE)


def readers_at_the_gate_and_beside(scene: Scene) -> None:
    a_reader_at_the_gate(scene)
    scene.linger('beside', scene.connector.get, A)


def a_writer(scene: Scene) -> None:
    scene.linger('at the gate', scene.connector.set, B, b'old')


def read(scene: Scene) -> None:
    assert scene.connector.get(A) == b'old'


def write(scene: Scene) -> None:
    scene.connector.set(A, b'new')


def write_inside_a_read(scene: Scene) -> None:
    scene.within = lambda: write(scene)
    scene.connector.get(A)


def read_inside_a_write(scene: Scene) -> None:
    scene.within = lambda: scene.connector.get(A)
    write(scene)


@pytest.mark.parametrize(
    'error',
    # The second could be taken for what the lock itself runs into.
    [KeyboardInterrupt(), RuntimeError('from a handler')],
    ids=repr,
)
@pytest.mark.parametrize(
    'situation',
    [
        nobody,
        a_reader_at_the_gate,
        a_reader_beside,
        readers_at_the_gate_and_beside,
        a_writer,
    ],
)
@pytest.mark.parametrize(
    'operation',
    [read, write, write_inside_a_read, read_inside_a_write],
)
@pytest.mark.parametrize('backoff', [(), (0.0,)], ids=['', 'back-off'])
def test_every_moment(
    backoff: tuple[float, ...],
    operation: Callable[[Scene], None],
    situation: Callable[[Scene], None],
    error: BaseException,
) -> None:
    for moment in range(MOMENTS):
        if not fault(moment, error, operation, situation, backoff):
            break
    # It takes and releases one lock at least.
    assert 2 <= moment < MOMENTS - 1


def fault(
    moment: int,
    error: BaseException,
    operation: Callable[[Scene], None],
    situation: Callable[[Scene], None],
    backoff: tuple[float, ...],
) -> bool:
    """Raise an error at one moment of an operation.

    Returns:
        If the operation had such a moment.
    """
    faults = Faults(moment, error)
    made = SimpleNamespace(
        RLock=lambda: FaultyLock(faults),
        get_ident=threading.get_ident,
    )
    with (
        mock.patch.object(locks, 'threading', made),
        mock.patch.object(locks, '_BACKOFF', backoff),
    ):
        scene = Scene(faults)
        situation(scene)
        faults.armed = True
        surfaced = None
        try:
            operation(scene)
        except BaseException as caught:
            surfaced = caught
        faults.armed = False
        assert surfaced is (error if faults.struck else None)
        scene.let_leave()
        for thread in scene.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        scene.store.hook = bool
        assert dict(scene.store.items()) in (OLD, NEW)
        assert_free(scene.connector)
    return faults.struck
