"""Small programs hold under every schedule that could make a difference.

Run under frontrun: `tox -e interleavings`. A program is the operations of each
thread: `put_batch | get get` is a batch in one thread beside two reads in
another, of the first key and of the second. A bound says how often a schedule
may take the turn from a thread that could go on.
"""

from __future__ import annotations

from itertools import combinations_with_replacement
from typing import Any
from unittest import mock

import pytest

pytest.importorskip(
    'frontrun',
    reason='frontrun is not installed: tox -e interleavings runs this',
)

from proxystore_local import seqlocked
from proxystore_local.rwlocked import RWLockedDict
from proxystore_local.seqlocked import Seqlock
from tests.support.interleavings import explore
from tests.support.locks import HidesWritesThatAreOver
from tests.support.locks import HidesWritesUnderWay
from tests.support.locks import IsNotReleased
from tests.support.locks import LetsTwoWritersIn
from tests.support.locks import NoLock

# A search that takes longer fails: not all was explored.
pytestmark = [pytest.mark.schedules, pytest.mark.timeout(600)]

# For each way through the code, an operation on both keys; those that write
# come first.
WRITERS = ['put_batch', 'set set', 'evict evict']
READERS = ['get get', 'exists exists', 'get_batch', '__len__']

PAIRS = [
    f'{first.split()[0]} | {second.split()[0]}'
    for first, second in combinations_with_replacement(WRITERS + READERS, 2)
]
# Where one operation could see a part of another.
BESIDE_A_BATCH = [f'put_batch | {other}' for other in WRITERS + READERS]
THREES = ['put_batch | set | get_batch', 'put_batch | put_batch | get get']


@pytest.mark.parametrize('program', PAIRS)
def test_two_operations_bound_2(program: str) -> None:
    explore(program, bound=2)


@pytest.mark.parametrize('program', BESIDE_A_BATCH + THREES)
def test_beside_a_batch_bound_1(program: str) -> None:
    explore(program, bound=1)


def unguarded(store: Any, store_id: str) -> RWLockedDict:
    return RWLockedDict(store, store_id, NoLock())


@pytest.mark.parametrize('program', BESIDE_A_BATCH)
def test_without_a_lock_a_failure_is_found(program: str) -> None:
    with pytest.raises(AssertionError):
        explore(program, bound=2, guard=unguarded)


FOUND: dict[type[Seqlock], list[str]] = {
    LetsTwoWritersIn: WRITERS,
    HidesWritesUnderWay: READERS,
    HidesWritesThatAreOver: ['get_batch', '__len__'],
    IsNotReleased: WRITERS + READERS,
}


@pytest.mark.parametrize(
    ('fault', 'other'),
    [(fault, other) for fault in FOUND for other in FOUND[fault]],
)
def test_a_faulty_lock_is_found(fault: type[Seqlock], other: str) -> None:
    with (
        mock.patch.object(seqlocked, 'Seqlock', fault),
        pytest.raises(AssertionError),
    ):
        explore(f'put_batch | {other}', bound=2)
