"""The rule of guarded.py holds on this Python: a section calls nothing.

What CPython compiles a critical section to is read here, on every Python that
the tests run on. From each instruction that acquires, all ways to one that
releases are followed, exceptions included.
"""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from types import CodeType

import pytest

from proxystore_local import guarded

SOURCE = inspect.getsource(guarded)

# The statements that acquire and release, and what they are compiled to.
ACQUIRES = {'readers += (None,)': 'BINARY_OP', 'del gate[1]': 'DELETE_SUBSCR'}
RELEASES = {
    'readers += (None,)': ('del readers[0]', 'DELETE_SUBSCR'),
    'del gate[1]': ('gate += (None,)', 'BINARY_OP'),
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


def violations(source: str) -> tuple[int, list[str]]:
    """Find what is forbidden in the critical sections of a source.

    Returns:
        How many statements acquire, and what is wrong with the sections.
    """
    lines = [line.strip() for line in source.splitlines()]
    found = []
    acquired = set()
    for code in codes(compile(source, 'guarded.py', 'exec')):
        bytecode = dis.Bytecode(code)
        instructions = list(bytecode)
        places = {it.offset: n for n, it in enumerate(instructions)}
        statements = [
            '' if it.positions is None or it.positions.lineno is None
            else lines[it.positions.lineno - 1]
            for it in instructions
        ]  # fmt: skip

        def successors(
            place: int,
            instructions: list[dis.Instruction] = instructions,
            places: dict[int, int] = places,
            bytecode: dis.Bytecode = bytecode,
        ) -> Iterator[int]:
            """Find what comes after an instruction; -1 is the caller."""
            it = instructions[place]
            if not it.opname.startswith(NO_NEXT):
                yield place + 1
            if it.opcode in (*dis.hasjrel, *dis.hasjabs):
                yield places[it.argval]
            if not it.opname.startswith(CANNOT_RAISE):
                yield next(
                    (
                        places[entry.target]
                        for entry in bytecode.exception_entries  # type: ignore[attr-defined]
                        if entry.start <= it.offset < entry.end
                    ),
                    -1,
                )

        for place, statement in enumerate(statements):
            if ACQUIRES.get(statement) != instructions[place].opname:
                continue
            acquired.add(instructions[place].positions)
            seen = {place}
            todo = [place + 1]
            while todo:
                at = todo.pop()
                it = instructions[at]
                if at in seen or RELEASES[statement] == (
                    statements[at],
                    it.opname,
                ):
                    continue
                seen.add(at)
                after = list(successors(at))
                wrong = it.opname.startswith(FORBIDDEN)
                # A handler may stand anywhere.
                backward = 'JUMP' in it.opname and min(after) < at
                if wrong or backward or -1 in after:
                    where = f'{code.co_qualname}: {statements[at]}'
                    found.append(f'{where}: {it.opname}')
                else:
                    todo += after
    # Each is compiled once.
    return len(acquired), found


def test_no_section_calls_or_jumps_backward() -> None:
    count, found = violations(SOURCE)
    assert found == []
    # All of them were looked at.
    acquires = [line.strip() in ACQUIRES for line in SOURCE.splitlines()]
    assert count == sum(acquires) >= 6


@pytest.mark.parametrize(
    ('old', 'new', 'instruction'),
    [
        ('return store[key]', 'return store.get(key)', 'CALL'),
        ('del store[key]', 'store.pop(key)', 'CALL'),
        ('self.store[key] = value', 'self.store.update(a=1)', 'CALL'),
        ('(result,) = run', 'result = next(run)', 'CALL'),
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
    count, found = violations(before + inside + after.replace(old, new))
    assert count >= 6
    assert any(instruction in line for line in found), found
