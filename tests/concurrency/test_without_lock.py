"""The tests of the tests: without a lock, each check between threads fails."""

from __future__ import annotations

import threading

import pytest

from tests.concurrency import test_sharing
from tests.concurrency.test_batches import ATOMIC
from tests.concurrency.test_sharing import check_writers_exclude
from tests.concurrency.test_sharing import SHARING
from tests.support.locks import Mutex
from tests.support.locks import NoLock

EXCLUDING = ATOMIC | {'writers exclude': check_writers_exclude}


@pytest.mark.parametrize('check', EXCLUDING)
def test_fails_without_a_lock(check: str) -> None:
    with pytest.raises((AssertionError, KeyError)):
        EXCLUDING[check](NoLock)


@pytest.mark.parametrize('check', SHARING)
def test_sharing_fails_with_a_mutex(
    monkeypatch: pytest.MonkeyPatch,
    check: str,
) -> None:
    # Readers wait for each other inside, which is in vain here.
    monkeypatch.setattr(test_sharing, 'PATIENCE', 1)
    with pytest.raises((AssertionError, threading.BrokenBarrierError)):
        SHARING[check](Mutex)
