"""Reads share the dict; a write has it alone."""

from __future__ import annotations

import pytest

from tests.checks import check_queued_readers_share
from tests.checks import check_readers_share
from tests.checks import check_readers_share_after_writes
from tests.checks import check_writers_exclude
from tests.harness import LOCKS


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_share(lock: str) -> None:
    check_readers_share(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_writers_exclude(lock: str) -> None:
    check_writers_exclude(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_share_after_writes(lock: str) -> None:
    check_readers_share_after_writes(LOCKS[lock])


@pytest.mark.parametrize('lock', LOCKS)
def test_readers_who_queued_behind_a_writer_share(lock: str) -> None:
    check_queued_readers_share(LOCKS[lock])
