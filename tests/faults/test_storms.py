"""Storms of faults: the default lock survives them, and others do not."""

from __future__ import annotations

import os

import pytest

from tests.support.processes import FREE_THREADED
from tests.support.processes import needs_fork
from tests.support.processes import run_apart

pytestmark = [pytest.mark.storm, pytest.mark.timeout(600)]

# How long each takes.
SECONDS = os.environ.get('STORM_SECONDS', '1')

# What a storm must have counted, or it was none.
STORMS = {
    'interrupts': ['interrupts'],
    'async_exceptions': ['interrupts'],
    'handlers': ['handlers'],
    'finalizers': ['finalizers', 'threads'],
    'forks': ['forks'],
    'soak': [
        'operations',
        'interrupts',
        'handlers',
        'finalizers',
        'forks',
        'threads',
    ],
}
FORKING = ('forks', 'soak')

every_storm = pytest.mark.parametrize(
    'storm',
    [
        pytest.param(storm, marks=[needs_fork] if storm in FORKING else [])
        for storm in STORMS
    ],
)


def run_storm(
    storm: str,
    lock: str,
    seconds: str,
    patience: str = '60',
) -> tuple[int, str]:
    """Let it storm in a process of its own."""
    return run_apart(
        *('-m', 'tests.support.storms', storm, lock, seconds),
        timeout=float(seconds) + 500,
        STORM_PATIENCE=patience,
    )


@every_storm
def test_the_default_lock_survives(storm: str) -> None:
    code, printed = run_storm(storm, 'default', SECONDS)
    assert code == 0, printed
    for count in STORMS[storm]:
        assert f'"{count}"' in printed, printed
    # Not even a finalizer or a weakref callback had anything to complain of.
    assert 'ignored' not in printed, printed


@every_storm
def test_other_locks_do_not_survive(storm: str) -> None:
    if FREE_THREADED and storm in FORKING:
        pytest.skip('without a GIL, a child may hang in CPython itself')
    code, printed = run_storm(storm, 'RWLockFair', '1', patience='4')
    assert code != 0, printed


@needs_fork
def test_the_soak_fails_without_a_lock() -> None:
    # It ends with the first thing that is wrong.
    code, printed = run_storm('soak', 'NoLock', '20', patience='20')
    assert code != 0, printed
    assert 'AssertionError' in printed
