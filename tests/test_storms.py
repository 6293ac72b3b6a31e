"""Storms of faults: the default lock survives them, and others do not."""

from __future__ import annotations

import os

import pytest

from tests.harness import run_storm

# What a storm must have counted, or it was none.
STORMS = {
    'interrupts': 'interrupts',
    'async_exceptions': 'interrupts',
    'handlers': 'handlers',
    'finalizers': 'finalizers',
    'forks': 'forks',
    'readers': 'writes',
}

every_storm = pytest.mark.parametrize(
    'storm',
    [
        pytest.param(
            storm,
            marks=pytest.mark.skipif(
                storm == 'forks' and not hasattr(os, 'fork'),
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
    assert f'"{STORMS[storm]}"' in printed
    # Not even a finalizer or a weakref callback had anything to complain of.
    assert 'ignored' not in printed, printed


@pytest.mark.timeout(600)
@every_storm
def test_other_locks_do_not_survive_a_storm(storm: str) -> None:
    # RWLockFair is fair, so it takes another to starve.
    lock = 'RWLockRead' if storm == 'readers' else 'RWLockFair'
    code, printed = run_storm(storm, lock, seconds=1, patience=4)
    assert code != 0, printed
