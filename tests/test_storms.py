"""Storms of faults: the default lock survives them, and others do not."""

from __future__ import annotations

import os
import sys

import pytest

from tests.harness import run_storm

FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()

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

every_storm = pytest.mark.parametrize(
    'storm',
    [
        pytest.param(
            storm,
            marks=pytest.mark.skipif(
                storm in ('forks', 'soak') and not hasattr(os, 'fork'),
                reason='there is no fork',
            ),
        )
        for storm in STORMS
    ],
)


@pytest.mark.timeout(600)
@every_storm
def test_the_default_lock_survives_a_storm(storm: str) -> None:
    code, printed = run_storm(storm)
    assert code == 0, printed
    for count in STORMS[storm]:
        assert f'"{count}"' in printed, printed
    # Not even a finalizer or a weakref callback had anything to complain of.
    assert 'ignored' not in printed, printed


@pytest.mark.timeout(600)
@every_storm
def test_other_locks_do_not_survive_a_storm(storm: str) -> None:
    if FREE_THREADED and storm in ('forks', 'soak'):
        pytest.skip('without a GIL, a child may hang in CPython itself')
    code, printed = run_storm(storm, 'RWLockFair', seconds=1, patience=4)
    assert code != 0, printed


@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, 'fork'), reason='there is no fork')
def test_the_soak_fails_without_a_lock() -> None:
    # It ends with the first thing that is wrong.
    code, printed = run_storm('soak', 'NoLock', seconds=20, patience=20)
    assert code != 0, printed
    assert 'AssertionError' in printed
