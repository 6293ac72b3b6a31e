"""Tests of the documentation: its programs run, and what it names exists."""

from __future__ import annotations

import configparser
import re
import textwrap
import tomllib
from pathlib import Path

import pytest

from tests.support.processes import ROOT
from tests.support.processes import run_apart

README = ROOT / 'README.md'
DOCUMENTS = [README, *sorted((ROOT / 'docs' / 'pages').glob('*.md'))]
TEXTS = {path: path.read_text(encoding='utf-8') for path in DOCUMENTS}
ALL = '\n'.join(TEXTS.values())

BLOCK = re.compile(
    r'^(?P<indent> *)```(?P<language>\w+| { \.python }$)[^\n]*\n'
    r'(?P<body>.*?)^(?P=indent)```$',
    re.DOTALL | re.MULTILINE,
)


def blocks(document: Path, language: str) -> dict[int, str]:
    """Get the fenced blocks in a language, by the line where they start."""
    text = TEXTS[document]
    return {
        text.count('\n', 0, block.start()) + 1: textwrap.dedent(block['body'])
        for block in BLOCK.finditer(text)
        if block['language'] == language
    }


PROGRAMS = [
    pytest.param(document, program, id=f'{document.stem}_{line}')
    for document in DOCUMENTS
    for line, program in blocks(document, 'python').items()
]


@pytest.mark.parametrize(('document', 'program'), PROGRAMS)
def test_program(document: Path, program: str, tmp_path: Path) -> None:
    assert re.search(r'^ *assert ', program, re.MULTILINE), 'checks nothing'
    if re.search(r'^\s*(from|import) proxystore\b', program, re.MULTILINE):
        pytest.importorskip('proxystore')
    file = tmp_path / 'program.py'
    file.write_text(program, encoding='utf-8')
    # Not in development mode, in which asyncio reports what takes long.
    code, printed = run_apart('-W', 'error', str(file))
    assert code == 0, printed
    # What it prints stands there as a comment, and no more.
    comments = re.findall(r'(?:^ *# .*\n)+', program, re.MULTILINE)
    expected = ''.join(f'# {line}\n' for line in printed.splitlines())
    assert expected in ['', *map(textwrap.dedent, comments)]


@pytest.mark.parametrize('framework', ['distributed', 'parsl'])
def test_program_on_a_task_framework(framework: str, tmp_path: Path) -> None:
    pytest.importorskip(framework)
    pytest.importorskip('proxystore')
    page = ROOT / 'docs' / 'pages' / 'dask-parsl.md'
    (program,) = blocks(page, 'python').values()
    parts = blocks(page, ' { .python }').values()
    (last,) = (part for part in parts if part.startswith(f'from {framework}'))
    # Parsl writes its log where it is run.
    move = f'import os\nos.chdir({str(tmp_path)!r})\n'
    check = 'assert totals == expected and totals is not expected\n'
    file = tmp_path / 'program.py'
    file.write_text(f'{move}{program}expected = totals\n{last}{check}')
    code, printed = run_apart(str(file))
    assert code == 0, printed


def test_programs_are_typed(tmp_path: Path) -> None:
    mypy = pytest.importorskip('mypy.api')
    for case in PROGRAMS:
        program = str(case.values[1])
        (tmp_path / f'{case.id}.py').write_text(program, encoding='utf-8')
    config = str(ROOT / 'pyproject.toml')
    found, failed, code = mypy.run(
        ['--scripts-are-modules', '--config-file', config, str(tmp_path)],
    )
    assert code == 0, found + failed


def test_readme_has_the_two_commands_of_ci() -> None:
    ci = (ROOT / '.ci' / 'run').read_text(encoding='utf-8')
    commands = re.findall(
        r'^(?:main_job|tests)=["\'](.*)["\']$', ci, re.MULTILINE
    )
    assert len(commands) == 2
    for command in commands:
        assert f'{command}\n' in blocks(README, 'sh').values()


def test_what_is_named_exists() -> None:
    files = re.findall(r'\b(?:benchmarks|docs|src|tests)/[\w./-]+\.\w+', ALL)
    assert [name for name in files if not (ROOT / name).exists()] == []

    toml = (ROOT / 'pyproject.toml').read_text(encoding='utf-8')
    extras = tomllib.loads(toml)['project']['optional-dependencies']
    assert set(re.findall(r"'\.\[(\w+)\]'", ALL)) <= {*extras}

    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / 'tox.ini', encoding='utf-8')
    # A name is made of factors. Those that are not listed have a section.
    factors = re.findall(r'\w+', '\n'.join([tox['tox']['env_list'], *tox]))
    named = ','.join(re.findall(r'\btox -e ([\w,-]+)', ALL))
    assert set(re.split('[,-]', named)) <= {*factors}


def test_map_of_the_tests_is_complete() -> None:
    tests = ROOT / 'tests'
    text = (tests / 'README.md').read_text(encoding='utf-8')
    named = set(re.findall(r'`(\w+/test_\w+\.py)`', text))
    files = {path.relative_to(tests) for path in tests.glob('*/test_*.py')}
    assert named == {path.as_posix() for path in files}


def test_speed_in_readme_is_that_of_the_tables() -> None:
    tables = ROOT / 'docs' / 'pages' / 'performance' / 'tables.md'
    text = tables.read_text(encoding='utf-8')

    def ratios(row: str, rival: int) -> list[str]:
        (cells,) = re.findall(rf'^\| {row} \| (.*) \|$', text, re.MULTILINE)
        rivals = [cell.split(' / ')[rival] for cell in cells.split(' | ')]
        return [ratio.removesuffix(' lost') for ratio in rivals]

    for label, row in (
        ('`get`, one thread', 'One thread: get'),
        ('`set`, one thread', 'One thread: set'),
        ('`put`, one thread', 'One thread: put'),
        ('8 threads, 10 % writes', 'Threads: 8, 10 % writes'),
    ):
        cells = ' | '.join([label, *ratios(row, 0)])
        assert f'\n| {cells} |\n' in TEXTS[README]
    unlocked = [1 / float(it) for it in ratios('One thread: get', 2)[:3]]
    speed = f'{min(unlocked):.1f} to {max(unlocked):.1f} times as fast'
    assert f'is {speed}' in TEXTS[README]
