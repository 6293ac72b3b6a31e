"""The linearizability checker finds an order of calls where there is one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.linearizability import assert_linearizable
from tests.support.linearizability import Call
from tests.support.linearizability import linearizable
from tests.support.operations import A
from tests.support.operations import B

OLD = {A: b'old', B: b'old'}


def call(name: str, *arguments: Any, result: Any = None, at: Any) -> Call:
    return Call(0, name, arguments, result, *at)


# Histories on a dict of OLD, in which each call is possible by itself.
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
    'a put raises': [call('put', b'1', result=KeyError('a'), at=(0, 1))],
    'a set returns something': [call('set', A, b'1', result=1, at=(0, 1))],
}


@pytest.mark.parametrize('name', [*GOOD, *BAD])
def test_decides_whether_a_history_is_linearizable(name: str) -> None:
    assert linearizable((GOOD | BAD)[name], OLD) == (name in GOOD)


def test_looks_at_the_final_contents() -> None:
    history = [call('set', A, b'new', at=(0, 1))]
    assert_linearizable(history, OLD, OLD | {A: b'new'})
    with pytest.raises(AssertionError, match=r'0 to +1  thread 0: set'):
        assert_linearizable(history, OLD, OLD)
