"""Storms of faults: the default lock survives them, and others do not."""

from __future__ import annotations

import os

import pytest

from tests.support.processes import needs_fork
from tests.support.processes import needs_gil
from tests.support.processes import run_apart
from tests.support.storms import STORMS

pytestmark = [pytest.mark.storm, pytest.mark.timeout(600), needs_fork]

# How long each takes.
SECONDS = os.environ.get('STORM_SECONDS', '1')


def run_storm(*arguments: str, patience: str) -> tuple[int, str]:
    """Let it storm in a process of its own."""
    return run_apart(
        *('-m', 'tests.support.storms', *arguments),
        timeout=float(SECONDS) + 500,
        TEST_PATIENCE=patience,
    )


@pytest.mark.parametrize('storm', STORMS)
def test_the_default_lock_survives(storm: str) -> None:
    code, printed = run_storm(storm, 'default', SECONDS, patience='60')
    assert code == 0, printed
    # It was a storm.
    for fault in STORMS[storm]:
        assert f'"{fault}"' in printed, printed
    # Not even a finalizer or a weakref callback had anything to complain of.
    assert 'ignored' not in printed, printed


@pytest.mark.parametrize(
    'storm',
    [
        pytest.param(storm, marks=[needs_gil] if 'forks' in faults else [])
        for storm, faults in STORMS.items()
    ],
)
def test_other_locks_do_not_survive(storm: str) -> None:
    code, printed = run_storm(storm, 'RWLockFair', '2', patience='2')
    assert code != 0, printed


def test_the_soak_fails_without_a_lock() -> None:
    # It ends with the first thing that is wrong.
    code, printed = run_storm('soak', 'NoLock', '20', patience='20')
    assert code != 0, printed
    assert 'AssertionError' in printed
