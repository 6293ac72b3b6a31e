"""The tests of the tests: without a lock, each check between threads fails."""

from __future__ import annotations

import threading

import pytest

from tests import checks
from tests.checks import CHECKS
from tests.checks import SHARING
from tests.harness import Mutex
from tests.harness import NoLock


@pytest.mark.parametrize('check', sorted(CHECKS.keys() - SHARING))
@pytest.mark.usefixtures('tiny_switch_interval')
def test_fails_without_a_lock(check: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        CHECKS[check](NoLock)


def test_sharing_fails_with_a_mutex() -> None:
    with pytest.raises(AssertionError, match='blocked'):
        CHECKS['readers_share'](Mutex)


@pytest.mark.parametrize('check', sorted(SHARING - {'readers_share'}))
def test_sharing_by_many_fails_with_a_mutex(
    monkeypatch: pytest.MonkeyPatch,
    check: str,
) -> None:
    # Readers wait for each other inside, which is in vain here.
    monkeypatch.setattr(checks, 'PATIENCE', 1)
    with pytest.raises(threading.BrokenBarrierError):
        CHECKS[check](Mutex)
