"""The rule of seqlocked.py holds on this Python: a section calls nothing.

What CPython compiles a critical section to is read here, on every Python that
the tests run on. From each instruction that acquires, all ways to one that
releases are followed, exceptions included.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from itertools import pairwise
from types import CodeType

import pytest

from proxystore_local import connector
from proxystore_local import seqlocked

# The sources with critical sections, and how many each has.
SOURCES = {inspect.getsource(connector): 2, inspect.getsource(seqlocked): 1}

# What acquires, and what releases; and attributes that are no properties, and
# are there, so that to load or set one does not fail.
ACQUIRE = ('DELETE_ATTR', 'stamp')
RELEASE = ('STORE_ATTR', 'stamp')
PLAIN = ('_store', 'last')

# Instructions that run code or let the interpreter do so, and those that leave
# the function.
FORBIDDEN = (
    'CALL', 'PRECALL', 'RESUME', 'SEND', 'YIELD', 'AWAIT', 'WITH', 'IMPORT',
    'MAKE', 'EVAL_BREAKER', 'PERIODIC', 'RETURN',
)  # fmt: skip
NO_NEXT = ('JUMP_FORWARD', 'JUMP_BACKWARD', 'RERAISE', 'RAISE')
CANNOT_RAISE = (
    'NOP', 'LOAD_FAST', 'LOAD_CONST', 'LOAD_COMMON_CONSTANT',
    'LOAD_SMALL_INT', 'LOAD_GLOBAL',
    'STORE_FAST', 'COPY', 'SWAP', 'PUSH_EXC_INFO', 'POP_EXCEPT', 'POP_TOP',
    'JUMP', 'POP_JUMP', 'NOT_TAKEN', 'CACHE', 'EXTENDED_ARG',
)  # fmt: skip


def codes(code: CodeType) -> Iterator[CodeType]:
    """Find the code of all functions in a module."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def successors(code: CodeType) -> dict[int, list[int]]:
    """Find the offsets of what can come after each instruction.

    -1 is the caller, which gets an exception.
    """
    bytecode = dis.Bytecode(code)
    handlers = bytecode.exception_entries  # type: ignore[attr-defined]
    found: dict[int, list[int]] = {it.offset: [] for it in bytecode}
    following = dict(pairwise(found))
    for it in bytecode:
        after = found[it.offset]
        if not it.opname.startswith(NO_NEXT) and it.offset in following:
            after.append(following[it.offset])
        if it.opcode in (*dis.hasjrel, *dis.hasjabs):
            after.append(it.argval)
        if not it.opname.startswith(CANNOT_RAISE) and it.argval not in PLAIN:
            targets = [
                entry.target
                for entry in handlers
                if entry.start <= it.offset < entry.end
            ]
            after.append(targets[0] if targets else -1)
    return found


def violations(source: str, sections: int) -> list[str]:
    """Find what is forbidden in so many critical sections of a source."""
    wrong = []
    for code in codes(compile(source, '<source>', 'exec')):
        after = successors(code)
        does = {
            it.offset: (it.opname, it.argval)
            for it in dis.get_instructions(code)
        }
        starts = [at for at, it in does.items() if it == ACQUIRE]
        sections -= len(starts)
        # If the acquisition itself fails, nothing is acquired.
        todo = [after[start][0] for start in starts]
        seen = set()
        while todo:
            at = todo.pop()
            if at in seen or does[at] == RELEASE:
                continue
            seen.add(at)
            name, what = does[at]
            # A handler may stand anywhere.
            backward = (
                'JUMP' in name
                and 'NO_INTERRUPT' not in name
                and min(after[at]) < at
            )
            if (
                name.startswith(FORBIDDEN)
                or (name.endswith('_ATTR') and what not in PLAIN)
                or backward
                or -1 in after[at]
            ):
                wrong.append(f'{code.co_qualname}: {does[at]}')
            else:
                todo += after[at]
    assert sections == 0
    return wrong


@pytest.mark.parametrize('source', SOURCES, ids=['connector', 'seqlocked'])
def test_no_section_calls_or_jumps_backward(source: str) -> None:
    assert violations(source, SOURCES[source]) == []


@pytest.mark.parametrize(
    ('old', 'new', 'instruction'),
    [
        ('self._store[key] = obj', 'self._store.update({key: obj})', ''),
        ('del store[key]', 'print()', 'CALL'),
        ('return result', 'return print(result)', 'CALL'),
        ('(result,) = run', 'result = [*map(str, run)]', 'CALL'),
        ('(result,) = run', 'for result in run: pass', 'JUMP_BACKWARD'),
        ('(result,) = run', 'with run: result = 1', ''),
        ('(result,) = run', 'result = lock.anything', 'ATTR'),
        ('lock.stamp = after', 'pass', 'R'),
        ('lock.stamp = lock.last', 'pass', 'R'),
    ],
)
def test_a_section_that_breaks_the_rule_is_found(
    old: str,
    new: str,
    instruction: str,
) -> None:
    (source,) = (it for it in SOURCES if old in it)
    found = violations(source.replace(old, new), SOURCES[source])
    assert any(instruction in line for line in found), found
