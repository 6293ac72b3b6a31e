"""Mutates the source with Cosmic Ray, and checks that the tests notice.

Run by `tox -e mutation`, since it takes longer than the tests do:

    python tests/mutation.py DIRECTORY [PATTERN]

A mutant is the source with one small fault in it. Cosmic Ray makes them on a
copy in DIRECTORY, as tests/mutation.toml says, with its own operators and one
more, which leaves out a statement. Fails if a mutant survives. What no test
can notice is skipped: see the list in that file.

With a PATTERN, only mutants of lines that it is found in are run, each with
the name of its file before it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.commands import execute
from cosmic_ray.commands import init
from cosmic_ray.config import ConfigDict
from cosmic_ray.modules import find_modules
from cosmic_ray.plugins import OPERATOR_PROVIDERS
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome
from cosmic_ray.work_item import WorkerOutcome
from cosmic_ray.work_item import WorkResult
from parso.python.tree import Keyword

ROOT = Path(__file__).parent.parent
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
    def arguments(cls) -> tuple[()]:
        return ()

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


OPERATOR_PROVIDERS['tests'] = {'LeaveOut': LeaveOut}


def copy_project(directory: Path) -> None:
    """Copy what the tests need, and go there."""
    shutil.rmtree(directory, ignore_errors=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / name, directory / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, directory / name)
    os.chdir(directory)
    # Before the one that is installed.
    os.environ['PYTHONPATH'] = str(directory / 'src')


def choose(database: Any, skipped: list[list[str]], pattern: str) -> int:
    """Skip what no test can notice; return how many mutants are left."""
    left = 0
    for item in database.work_items:
        (mutation,) = item.mutations
        lines = mutation.module_path.read_text().splitlines()
        line = lines[mutation.start_pos[0] - 1].strip()
        where = f'{mutation.module_path.name}: {line}'
        if not re.search(pattern, where) or any(
            re.search(operator, mutation.operator_name)
            and re.search(text, where)
            for operator, text, _ in skipped
        ):
            outcome = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
            database.set_result(item.job_id, outcome)
        else:
            left += 1
    return left


def main(directory: Path, pattern: str = '') -> int:
    """Run the mutants, and say what came of it."""
    options = ConfigDict(
        tomllib.loads((ROOT / 'tests' / 'mutation.toml').read_text()),
    )
    copy_project(directory.resolve() / 'copy')
    outcome, printed = run_tests(options.test_command, options.timeout)
    assert outcome == TestOutcome.SURVIVED, printed
    with use_db('mutants.sqlite') as database:
        init(find_modules([Path(options['module-path'])]), database, {})
        count = choose(database, options['skipped'], pattern)
        print(f'{count} mutants', flush=True)
        execute(database, options)
        results = [
            result
            for _, result in database.results
            if result.worker_outcome != WorkerOutcome.SKIPPED
        ]
    survived = [result for result in results if not result.is_killed]
    late = sum(result.output == 'timeout' for result in results)
    for result in survived:
        print(result.diff or result.output)
    print(
        f'{len(results)} mutants: {len(results) - len(survived)} killed, '
        f'{late} of them by a timeout, and {len(survived)} survived',
    )
    return len(survived) > 0 or len(results) != count


if __name__ == '__main__':
    directory, *pattern = sys.argv[1:]
    sys.exit(main(Path(directory), *pattern))
