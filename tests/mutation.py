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
from cosmic_ray.plugins import OPERATOR_PROVIDERS
from cosmic_ray.testing import run_tests
from cosmic_ray.tools.report import report
from cosmic_ray.tools.survival_rate import format_survival_rate
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import TestOutcome
from cosmic_ray.work_item import WorkerOutcome
from cosmic_ray.work_item import WorkResult
from parso.python.tree import Keyword

ROOT = Path(__file__).parent.parent
DATABASE = 'mutants.sqlite'


class LeaveOut:
    """Operator that leaves out a statement, but for an import or a docstring.

    Cosmic Ray does not have one, and takes any class with these methods.
    """

    # A keyword is a bare raise, break or continue, say.
    kinds = (
        *('atom_expr', 'expr_stmt', 'global_stmt', 'keyword'),
        *('raise_stmt', 'return_stmt'),
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


def skip(database: Any, skipped: list[list[str]], pattern: str) -> None:
    """Skip what no test can notice, and what does not have the pattern.

    Cosmic Ray can skip operators, or marked lines, but not one for a line.
    """
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


def main(directory: Path, pattern: str = '') -> None:
    """Run the mutants, and report those that survive."""
    for name in 'src', 'tests':
        shutil.copytree(ROOT / name, directory / name, dirs_exist_ok=True)
    shutil.copy(ROOT / 'pyproject.toml', directory)
    os.chdir(directory)
    # Before the one that is installed.
    os.environ['PYTHONPATH'] = str(Path('src').resolve())
    options = ConfigDict(
        tomllib.loads(Path('tests/mutation.toml').read_text())
    )
    outcome, printed = run_tests(options.test_command, options.timeout)
    assert outcome == TestOutcome.SURVIVED, printed
    with use_db(DATABASE) as database:
        init(Path('src/proxystore_local').glob('*.py'), database, {})
        skip(database, options['skipped'], pattern)
        print(f'{len([*database.pending_work_items])} mutants', flush=True)
        execute(database, options)
    report(
        ['--surviving-only', '--show-diff', '--show-output', DATABASE],
        standalone_mode=False,
    )
    # In percent; 0 would count as no limit.
    format_survival_rate(['--fail-over', '0.001', DATABASE])


if __name__ == '__main__':
    directory, *pattern = sys.argv[1:]
    main(Path(directory), *pattern)
