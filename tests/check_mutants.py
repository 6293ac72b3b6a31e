"""Mutates the source, and checks that the tests notice each mutant.

Run by `tox -e mutation`, since it takes longer than the tests do:

    python tests/check_mutants.py DIRECTORY [PATTERN]

A mutant is the source with one small fault in it. The operators of Cosmic Ray
make them, and one of our own, which leaves out a statement. A mutant that the
tests pass with has survived. Each that does must be listed in
tests/mutants.toml, with the reason, and each that is listed there must.

With a PATTERN, only those whose description it is found in are run.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import multiprocessing
import os
import re
import shutil
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.plugins import operator_names
from cosmic_ray.testing import run_tests
from parso.python.tree import Keyword

ROOT = Path(__file__).parent.parent
PACKAGE = Path('src', 'proxystore_local')
# What the tests need. It is copied, so that no mutant is ever left here.
COPIED = ['src', 'tests', 'pyproject.toml']


class LeaveOut:
    """Operator that leaves out a statement, but for an import or a docstring.

    Cosmic Ray does not have one, and takes any class with these methods.
    """

    kinds = frozenset(
        (
            'atom_expr',
            'expr_stmt',
            'global_stmt',
            'keyword',  # Such as a bare raise, break or continue.
            'raise_stmt',
            'return_stmt',
        ),
    )

    @classmethod
    def mutation_positions(cls, node: Any) -> Iterator[Any]:
        if node.type == 'simple_stmt' and node.children[0].type in cls.kinds:
            yield node.start_pos, node.end_pos

    @staticmethod
    def mutate(node: Any, _: int) -> Any:
        statement = node.children[0]
        prefix = statement.get_first_leaf().prefix
        node.children[0] = Keyword('pass', statement.start_pos, prefix)
        return node


@dataclass(frozen=True)
class Mutant:
    """A mutant, known by what it changes rather than by the number of a line.

    Attributes:
        module: Name of the file.
        scope: Qualified name of the function or class.
        old: The lines that it changes, joined to one.
        new: What it has instead.
        number: Which of those in its scope that have all of this in common.
        code: The whole module.
    """

    module: str
    scope: str
    old: str
    new: str
    number: int
    code: str

    def __str__(self) -> str:
        number = f' (number {self.number})' if self.number > 1 else ''
        return f'{self.module} {self.scope}: {self.old} -> {self.new}{number}'


def mutants_of(module: str, source: str) -> Iterator[Mutant]:
    """Make all mutants of a module that are programs and are not the same."""
    seen = {meaning(source)}
    alike: Counter[Any] = Counter()
    operators: list[Any] = [LeaveOut, *map(get_operator, operator_names())]
    for operator in operators:
        if operator is not LeaveOut and operator.arguments():
            continue  # It needs to be told the names of variables.
        occurrence = 0
        while code := mutate_code(source, operator(), occurrence):
            occurrence += 1
            try:
                means = meaning(code)
            except SyntaxError:
                continue
            if means not in seen:
                seen.add(means)
                row, old, new = difference(source, code)
                key = module, scope_of(row, source), old, new
                alike[key] += 1
                yield Mutant(*key, alike[key], code)


class _OnlyMeaning(ast.NodeTransformer):
    """Takes out annotations, which nothing reads, and double negations."""

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        match self.generic_visit(node):
            case ast.UnaryOp(ast.Not(), ast.Compare(ops=[ast.Is()]) as inner):
                inner.ops = [ast.IsNot()]
                return inner
            case ast.UnaryOp(
                ast.Not(), ast.Compare(ops=[ast.IsNot()]) as inner
            ):
                inner.ops = [ast.Is()]
                return inner
        return node


def meaning(code: str) -> str:
    """Get what a program does: its syntax without what makes no difference."""
    return ast.dump(_OnlyMeaning().visit(ast.parse(code)))


def difference(source: str, code: str) -> tuple[int, str, str]:
    """Find where two programs differ.

    Returns:
        The first line there, counted from 1, and what each has there, as one
        line.
    """
    before, after = source.splitlines(), code.splitlines()
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    changes = [step for step in matcher.get_opcodes() if step[0] != 'equal']
    _, start, _, new_start, _ = changes[0]
    _, _, end, _, new_end = changes[-1]
    return (
        start + 1,
        in_one_line(before[start:end]),
        in_one_line(after[new_start:new_end]),
    )


def in_one_line(lines: list[str]) -> str:
    return ' '.join(' '.join(lines).split())


def scope_of(row: int, source: str) -> str:
    """Get the qualified name of the function or class that a line is in."""
    names: list[str] = []
    body: list[ast.stmt] | None = ast.parse(source).body
    while body is not None:
        scopes, body = body, None
        for node in scopes:
            if isinstance(
                node, ast.ClassDef | ast.FunctionDef
            ) and node.lineno <= row <= (node.end_lineno or 0):
                names.append(node.name)
                body = node.body
    return '.'.join(names) or '<module>'


def copy_project(directory: Path) -> None:
    """Copy what the tests need, and go there. Each process has its own."""
    copy = directory / f'copy-{os.getpid()}'
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    os.chdir(copy)
    # Before the one that is installed.
    os.environ['PYTHONPATH'] = str(copy / 'src')


def try_tests(
    module: str,
    code: str,
    command: str,
    timeout: float,
) -> tuple[bool, float, str]:
    """Run the tests with other code for a module.

    Returns:
        If they pass, how many seconds they took, and what they printed.
    """
    path = PACKAGE / module
    source = path.read_text()
    start = time.monotonic()
    try:
        path.write_text(code)
        outcome, output = run_tests(command, timeout)
    finally:
        path.write_text(source)
    return outcome == 'survived', time.monotonic() - start, output


def main(directory: Path, pattern: str, jobs: int) -> int:
    """Run the mutants, and compare those that survive with those listed.

    Args:
        directory: Where the copies are made. Those of an earlier run go.
        pattern: Regular expression; only mutants that match are run.
        jobs: How many to run at once.

    Returns:
        How many faults were found.
    """
    for old in directory.glob('copy-*'):
        shutil.rmtree(old)
    options = tomllib.loads((ROOT / 'tests' / 'mutants.toml').read_text())
    command = options['cosmic-ray']['test-command']
    command = f'{sys.executable} -m pytest {command}'
    timeout = options['cosmic-ray']['timeout']
    sources = {
        path.name: path.read_text()
        for path in sorted((ROOT / PACKAGE).glob('*.py'))
    }
    mutants = [
        mutant
        for module, source in sources.items()
        for mutant in mutants_of(module, source)
        if re.search(pattern, str(mutant))
    ]
    start = time.monotonic()
    survived: list[Mutant] = []
    timed_out = 0
    with ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context('spawn'),
        copy_project,
        (directory,),
    ) as pool:
        module, source = next(iter(sources.items()))
        passed, seconds, output = pool.submit(
            try_tests, module, source, command, timeout
        ).result()
        assert passed, f'the tests fail without a mutant:\n{output}'
        print(f'{len(mutants)} mutants; the tests take {seconds:.0f} seconds')
        futures = [
            pool.submit(
                try_tests, mutant.module, mutant.code, command, timeout
            )
            for mutant in mutants
        ]
        for mutant, future in zip(mutants, futures):
            passed, seconds, output = future.result()
            late = output == 'timeout' or '+ Timeout +' in output
            timed_out += late
            if passed:
                survived.append(mutant)
            outcome = 'SURVIVED' if passed else 'late' if late else ''
            print(f'{seconds:5.1f} {outcome:8} {mutant}', flush=True)
    faults = compare(options['survivor'], mutants, survived, pattern)
    print(
        f'{len(mutants)} mutants: {len(mutants) - len(survived)} killed '
        f'({timed_out} by a timeout), {len(survived)} survived, in '
        f'{(time.monotonic() - start) / 60:.0f} minutes',
    )
    for fault in faults:
        print(fault)
    return len(faults)


def compare(
    listed: list[dict[str, Any]],
    mutants: list[Mutant],
    survived: list[Mutant],
    pattern: str,
) -> list[str]:
    """Compare the survivors with those that are listed.

    Each entry of the list gives the module, scope and old of a mutant, one
    or many new, which may have a number, and why the tests pass with it.

    Returns:
        What is wrong.
    """
    faults = []
    expected: set[Mutant] = set()
    for entry in listed:
        assert entry['reason'], entry
        for new in entry['new']:
            line = in_one_line([entry['old']])
            name = f'{entry["module"]} {entry["scope"]}: {line} -> {new}'
            found = {
                mutant
                for mutant in mutants
                if str(mutant).removesuffix(f' (number {mutant.number})')
                == name
                and entry.get('number', mutant.number) == mutant.number
            }
            if not found and re.search(pattern, name):
                faults.append(f'listed, but there is no such mutant: {name}')
            expected |= found
    for mutant in mutants:
        if mutant in survived and mutant not in expected:
            faults.append(f'survived, but is not listed: {mutant}')
        elif mutant in expected and mutant not in survived:
            faults.append(f'listed, but was killed: {mutant}')
    return faults


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description='Check that tests kill mutants.'
    )
    parser.add_argument('directory', type=Path)
    parser.add_argument('pattern', nargs='?', default='')
    parser.add_argument('--jobs', type=int, default=1)
    arguments = parser.parse_args()
    sys.exit(
        main(arguments.directory.resolve(), arguments.pattern, arguments.jobs)
        > 0
    )
