"""A model of the lock's steps, searched to the end, also without a GIL.

Each step is one that CPython makes atomic. In every order of the steps of
three writers and two readers, no read is torn, and all come to an end. Each
way to get it wrong is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from typing import NamedTuple
from typing import TypeAlias

import pytest


class Shared(NamedTuple):
    """What threads share.

    Attributes:
        stamp: The stamp, or `None` while somebody holds the lock.
        last: The last stamp.
        stamps: How many stamps have been made.
        data: Two values, which each write changes one after the other.
    """

    stamp: int | None = 0
    last: int = 0
    stamps: int = 1
    data: tuple[int, int] = (0, 0)


# Where a thread is, and what it knows.
Thread: TypeAlias = tuple[Any, ...]
DONE: Thread = ('done',)


def write(shared: Shared, me: Thread, fault: str) -> Iterator[Any]:
    """What a writer can do next: what is shared, and where it is, then."""
    match me:
        case ('write', value):
            if shared.stamp is not None or fault == 'two writers':
                yield shared._replace(stamp=None), ('one', value)
        case ('one', value):
            data = (value, shared.data[1])
            yield shared._replace(data=data), ('other', value)
        case ('other', value):
            data = (shared.data[0], value)
            after = shared.stamps * (fault != 'same stamp')
            new = shared._replace(data=data, stamps=shared.stamps + 1)
            yield new, ('last', after)
        case ('last', after):
            if fault != 'no last':
                shared = shared._replace(last=after)
            yield shared, ('release', after)
        case ('release', after):
            yield shared._replace(stamp=after), DONE


def read(shared: Shared, me: Thread, fault: str) -> Iterator[Any]:
    """What a reader can do next, which waits while it can do nothing."""
    match me:
        case ('look', tries):
            if shared.stamp is not None or fault == 'no first look':
                yield shared, ('first', tries, shared.stamp)
        case ('first', *known):
            yield shared, ('second', *known, shared.data[0])
        case ('second', *known, first):
            yield shared, ('check', *known, (first, shared.data[1]))
        case ('check', tries, stamp, seen):
            if shared.stamp == stamp or fault == 'no second look':
                yield shared, ('saw', seen)
            elif tries:
                yield shared, ('look', tries - 1)
            else:
                yield shared, ('look alone',)
        case ('look alone',):
            if shared.stamp is not None:
                yield shared, ('take', shared.stamp)
        case ('take', before):
            if shared.stamp is not None:
                free = shared._replace(stamp=None)
                yield free, ('alone', before)
        case ('alone', before):
            yield shared, ('alone', before, shared.data[0])
        case ('alone', before, first):
            yield shared, ('put back', before, (first, shared.data[1]))
        case ('put back', before, seen):
            stamp = before if fault == 'stale stamp' else shared.last
            yield shared._replace(stamp=stamp), ('saw', seen)
        case ('saw', seen):
            assert seen[0] == seen[1], f'torn: {seen}'
            yield shared, DONE


def search(fault: str = '', writers: int = 3, readers: int = 2) -> int:
    """Take all steps in every order, and count the states.

    Raises:
        AssertionError: If a read is torn, or nobody can go on.
    """
    threads = [('write', value + 1) for value in range(writers)]
    start = (Shared(), (*threads, *[('look', 1)] * readers))
    seen = {start}
    todo = [start]
    while todo:
        shared, at = todo.pop()
        able = False
        for i, me in enumerate(at):
            step = write if i < writers else read
            for then, there in step(shared, me, fault):
                able = True
                state = (then, (*at[:i], there, *at[i + 1 :]))
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        assert able or {*at} == {DONE}, f'stuck: {at}'
    return len(seen)


def test_no_read_is_torn_and_all_come_to_an_end() -> None:
    assert search() > 100_000


@pytest.mark.parametrize(
    'fault',
    [
        'two writers',
        'same stamp',
        'no last',
        'no first look',
        'no second look',
        'stale stamp',
    ],
)
def test_each_fault_is_found(fault: str) -> None:
    with pytest.raises(AssertionError, match='torn'):
        search(fault)
