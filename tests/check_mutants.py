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
import shlex
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
OPTIONS = tomllib.loads((ROOT / 'tests' / 'mutants.toml').read_text())
KINDS = ['equivalent', 'speed', 'build']


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


@dataclass(frozen=True)
class Result:
    """What came of running the tests.

    Attributes:
        passed: If they passed.
        seconds: How long they took.
        printed: What they printed.
    """

    passed: bool
    seconds: float
    printed: str

    @property
    def late(self) -> bool:
        """If something hung."""
        return self.printed == 'timeout' or '+ Timeout +' in self.printed

    def __str__(self) -> str:
        outcome = 'SURVIVED' if self.passed else 'late' if self.late else ''
        return f'{self.seconds:5.1f} {outcome:8}'


def try_tests(module: str, code: str) -> Result:
    """Run the tests with other code for a module."""
    command = f'{shlex.quote(sys.executable)} -m pytest {OPTIONS["tests"]}'
    path = PACKAGE / module
    source = path.read_text()
    start = time.monotonic()
    try:
        path.write_text(code)
        outcome, printed = run_tests(command, OPTIONS['timeout'])
    finally:
        path.write_text(source)
    return Result(outcome == 'survived', time.monotonic() - start, printed)


def run(
    mutants: list[Mutant], directory: Path, jobs: int
) -> dict[Mutant, Result]:
    """Run the tests on each mutant, after a run without one.

    Args:
        mutants: Which to run.
        directory: Where the copies are made. Those of an earlier run go.
        jobs: How many to run at once.
    """
    for old in directory.glob('copy-*'):
        shutil.rmtree(old)
    with ProcessPoolExecutor(
        jobs,
        multiprocessing.get_context('spawn'),
        copy_project,
        (directory,),
    ) as pool:
        try:
            path = ROOT / PACKAGE / '__init__.py'
            healthy = pool.submit(
                try_tests, path.name, path.read_text()
            ).result()
            print(f'{healthy} no mutant', flush=True)
            assert healthy.passed, healthy.printed
            futures = [
                pool.submit(try_tests, mutant.module, mutant.code)
                for mutant in mutants
            ]
            results = {}
            for mutant, future in zip(mutants, futures):
                results[mutant] = future.result()
                print(f'{results[mutant]} {mutant}', flush=True)
            return results
        finally:
            pool.shutdown(cancel_futures=True)


def compare(
    listed: list[dict[str, Any]],
    results: dict[Mutant, Result],
    pattern: str,
) -> Iterator[str]:
    """Compare the survivors with those that are listed.

    Each that is listed is given by the module, scope and old of the mutant,
    each new that it has, and its number, where only one of many survives.

    Yields:
        What is wrong.
    """
    expected: set[Mutant] = set()
    for entry in listed:
        assert entry['kind'] in KINDS, entry
        assert entry['reason'], entry
        for new in entry['new']:
            number = entry.get('number')
            known = entry['module'], entry['scope'], entry['old'], new
            found = {
                mutant
                for mutant in results
                if known
                == (mutant.module, mutant.scope, mutant.old, mutant.new)
                and number in (None, mutant.number)
            }
            name = str(Mutant(*known, number or 1, ''))
            if not found and re.search(pattern, name):
                yield f'listed, but there is no such mutant: {name}'
            expected |= found
    for mutant, result in results.items():
        if result.passed and mutant not in expected:
            yield f'survived, but is not listed: {mutant}'
        elif mutant in expected and not result.passed:
            yield f'listed, but was killed: {mutant}\n{result.printed[-2000:]}'


def main() -> None:
    """Run the mutants, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('directory', type=Path)
    parser.add_argument('pattern', nargs='?', default='')
    parser.add_argument('--jobs', type=int, default=1)
    options = parser.parse_args()
    mutants = [
        mutant
        for path in sorted((ROOT / PACKAGE).glob('*.py'))
        for mutant in mutants_of(path.name, path.read_text())
        if re.search(options.pattern, str(mutant))
    ]
    print(f'{len(mutants)} mutants', flush=True)
    start = time.monotonic()
    results = run(mutants, options.directory.resolve(), options.jobs)
    minutes = (time.monotonic() - start) / 60
    faults = [*compare(OPTIONS['survivor'], results, options.pattern)]
    survived = [result for result in results.values() if result.passed]
    late = [result for result in results.values() if result.late]
    print(
        f'{len(results)} mutants: {len(results) - len(survived)} killed, '
        f'{len(late)} of them by a timeout, and {len(survived)} survived; '
        f'{minutes:.0f} minutes',
    )
    for fault in faults:
        print(fault)
    sys.exit(len(faults) > 0)


if __name__ == '__main__':
    main()
