"""The tests of the tests: without a lock, each check between threads fails."""

from __future__ import annotations

import pytest

from tests.checks import CHECKS
from tests.harness import Mutex
from tests.harness import NoLock


@pytest.mark.parametrize('check', CHECKS.keys() - {'readers_share'})
@pytest.mark.usefixtures('tiny_switch_interval')
def test_fails_without_a_lock(check: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        CHECKS[check](NoLock)


def test_sharing_fails_with_a_mutex() -> None:
    with pytest.raises(AssertionError, match='blocked'):
        CHECKS['readers_share'](Mutex)
