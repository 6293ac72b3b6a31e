"""The default lock survives all faults at once, and others do not."""

from __future__ import annotations

import pytest

from tests.support.processes import needs_fork
from tests.support.processes import run_apart

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600), needs_fork]

FAULTS = ['interrupts', 'handlers', 'finalizers', 'forks']


def soak(seconds: float, lock: str, patience: int) -> tuple[int, str]:
    """Soak a connector in a process of its own."""
    return run_apart(
        *('-m', 'tests.support.soak', str(seconds / 60), lock),
        timeout=500,
        TEST_PATIENCE=str(patience),
    )


def test_the_default_lock_survives() -> None:
    code, printed = soak(3, 'default', patience=60)
    assert code == 0, printed
    for fault in FAULTS:
        assert f"'{fault}'" in printed, printed
    # Not even a finalizer or a weakref callback had anything to complain of.
    assert 'ignored' not in printed, printed


def test_a_lock_of_another_package_does_not_survive() -> None:
    code, printed = soak(1, 'RWLockFair', patience=2)
    assert code != 0, printed


def test_without_a_lock_contents_are_wrong() -> None:
    # It ends with the first thing that is wrong.
    code, printed = soak(20, 'NoLock', patience=20)
    assert code != 0, printed
    assert 'AssertionError' in printed
