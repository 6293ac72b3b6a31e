"""The rule of guarded.py holds on this Python: a section calls nothing.

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

from proxystore_local import guarded

SOURCE = inspect.getsource(guarded)

# What acquires, and what releases: statements, and what they are compiled to.
SECTIONS = {
    ('readers += (None,)', 'BINARY_OP'): ('del readers[0]', 'DELETE_SUBSCR'),
    ('del gate[1]', 'DELETE_SUBSCR'): ('gate += (None,)', 'BINARY_OP'),
}

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
        if not it.opname.startswith(CANNOT_RAISE):
            targets = [
                entry.target
                for entry in handlers
                if entry.start <= it.offset < entry.end
            ]
            after.append(targets[0] if targets else -1)
    return found


def violations(source: str) -> list[str]:
    """Find what is forbidden in the critical sections of a source."""
    lines = [line.strip() for line in source.splitlines()]
    wrong = []
    acquired = set()
    for code in codes(compile(source, 'guarded.py', 'exec')):
        after = successors(code)
        # The statement and the name of each instruction.
        does = {}
        for it in dis.get_instructions(code):
            line = it.positions.lineno if it.positions else None
            does[it.offset] = (lines[line - 1] if line else '', it.opname)
            if does[it.offset] in SECTIONS:
                acquired.add(line)
        for start, acquire in does.items():
            if acquire not in SECTIONS:
                continue
            seen = {start}
            todo = after[start][:1]  # If it fails, nothing is acquired.
            while todo:
                at = todo.pop()
                if at in seen or does[at] == SECTIONS[acquire]:
                    continue
                seen.add(at)
                _, name = does[at]
                # A handler may stand anywhere.
                backward = 'JUMP' in name and min(after[at]) < at
                if name.startswith(FORBIDDEN) or backward or -1 in after[at]:
                    wrong.append(f'{code.co_qualname}: {does[at]}')
                else:
                    todo += after[at]
    statements = {statement for statement, _ in SECTIONS}
    assert len(acquired) == sum(line in statements for line in lines) >= 8
    return wrong


def test_no_section_calls_or_jumps_backward() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ('old', 'new', 'instruction'),
    [
        ('return store[key]', 'return store.get(key)', 'CALL'),
        ('(result,) = run', 'result = [*map(str, run)]', 'CALL'),
        ('(result,) = run', 'for result in run: pass', 'JUMP_BACKWARD'),
        ('(result,) = run', 'with run: result = 1', ''),
        ('return None', 'return print()', 'CALL'),
        ('del readers[0]', 'pass', 'RETURN'),
        ('gate += (None,)', 'gate[0] = None', 'R'),
    ],
)
def test_a_section_that_breaks_the_rule_is_found(
    old: str,
    new: str,
    instruction: str,
) -> None:
    before, inside, after = SOURCE.partition('class GuardedDict(DictGuard):')
    assert old in after
    found = violations(before + inside + after.replace(old, new))
    assert any(instruction in line for line in found), found
