"""The linearizability checker decides as a search through all orders does."""

from __future__ import annotations

import itertools
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from proxystore_local import LocalKey
from tests.support.linearizability import apply
from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.linearizability import linearizable
from tests.support.operations import A
from tests.support.operations import B

C = LocalKey('c')
OLD = {A: b'old', B: b'old'}


def call(name: str, *arguments: Any, result: Any = None, at: Any) -> Call:
    return Call(0, name, arguments, result, *at)


def snapshot(contents: Any) -> Any:
    return {'include_data_in_config': True, 'store_dict': contents}


# Histories on a dict of OLD: those that are linearizable, and those that are
# not, though each of their calls is possible by itself.
GOOD = {
    'a read beside a write does not see it yet, and a later one does': [
        call('set', A, b'new', at=(0, 9)),
        call('get', A, result=b'old', at=(1, 2)),
        call('get', A, result=b'new', at=(3, 4)),
    ],
    'the order of writes is that of the reads, not of their starts': [
        call('set', A, b'first', at=(0, 9)),
        call('set', A, b'second', at=(1, 9)),
        call('get', A, result=b'second', at=(2, 3)),
        call('get', A, result=b'first', at=(4, 5)),
    ],
    'every operation': [
        call('put', b'1', result=C, at=(0, 1)),
        call('exists', C, result=True, at=(2, 3)),
        call('evict', C, at=(4, 5)),
        call('exists', C, result=False, at=(6, 7)),
        call('put_batch', [b'2', b'3'], result=[A, C], at=(8, 9)),
        call('get_batch', [C, B, A], result=[b'3', b'old', b'2'], at=(10, 11)),
        call('evict', B, at=(12, 13)),
        call('get_batch', [B, A], result=[None, b'2'], at=(14, 15)),
        call('__len__', result=2, at=(16, 17)),
        call('config', result=snapshot({A: b'2', C: b'3'}), at=(20, 21)),
    ],
}
BAD = {
    'a write is seen before it began': [
        call('get', A, result=b'new', at=(0, 1)),
        call('set', A, b'new', at=(2, 3)),
    ],
    'a write is seen and then not': [
        call('set', A, b'new', at=(0, 9)),
        call('get', A, result=b'new', at=(1, 2)),
        call('get', A, result=b'old', at=(3, 4)),
    ],
    'half of a batch is seen': [
        call('put_batch', [b'new', b'new'], result=[A, B], at=(0, 9)),
        call('get_batch', [A, B], result=[b'new', b'old'], at=(1, 8)),
    ],
    'a batch read sees a later set without an earlier one': [
        call('set', A, b'1', at=(0, 1)),
        call('set', B, b'1', at=(2, 3)),
        call('get_batch', [A, B], result=[b'old', b'1'], at=(0, 9)),
    ],
    'a snapshot misses a key': [
        call('config', result=snapshot({A: b'old'}), at=(0, 1)),
    ],
    'a put raises': [call('put', b'1', result=KeyError('a'), at=(0, 1))],
    'a set returns something': [call('set', A, b'1', result=1, at=(0, 1))],
}


@pytest.mark.parametrize('name', GOOD)
def test_finds_an_order(name: str) -> None:
    assert linearizable(GOOD[name], OLD)


@pytest.mark.parametrize('name', BAD)
def test_finds_that_there_is_no_order(name: str) -> None:
    assert not linearizable(BAD[name], OLD)


def test_what_is_not_linearizable_is_shown() -> None:
    history = [call('set', A, b'new', at=(0, 1))]
    assert_linearizable(history, OLD, OLD | {A: b'new'})
    with pytest.raises(AssertionError) as caught:
        assert_linearizable(history, OLD, OLD)
    assert str(caught.value).splitlines() == [
        "not linearizable, from {a: b'old', b: b'old'}:",
        "     0 to      1  thread 0: set(a, b'new') -> None",
        '     2 to      2  thread -1: config() -> '
        "{'include_data_in_config': True, "
        "'store_dict': {a: b'old', b: b'old'}}",
    ]


def makes_sense(order: Any) -> bool:
    """If calls can have been done in this order."""
    model = dict(OLD)
    return all(
        earlier.start <= later.end
        for earlier, later in itertools.combinations(order, 2)
    ) and all(apply(call, model) for call in order)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    key = draw(st.sampled_from([A, B]))
    value = draw(st.sampled_from([b'1', b'2']))
    name, arguments, result = draw(
        st.sampled_from(
            [
                ('set', (key, value), None),
                ('evict', (key,), None),
                ('get', (key,), value),
                ('exists', (key,), value == b'1'),
                ('put_batch', ([value, value],), [A, B]),
                ('get_batch', ([A, B],), [value, b'2']),
                ('__len__', (), int(value)),
            ],
        ),
    )
    start = draw(st.integers(0, 8))
    end = draw(st.integers(start + 1, 9))
    return Call(0, name, arguments, result, start, end)


@given(st.lists(calls(), max_size=5))
def test_decides_as_a_search_through_all_orders(history: list[Call]) -> None:
    expected = any(map(makes_sense, itertools.permutations(history)))
    assert linearizable(history, OLD) == expected
