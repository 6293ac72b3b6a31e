"""Tests of the documentation: its programs run, and what it names exists."""

from __future__ import annotations

import configparser
import re
import sys
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

TOML = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))

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
def test_program_of_documentation_runs(
    document: Path, program: str, tmp_path: Path
) -> None:
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
def test_program_runs_on_a_task_framework(
    framework: str, tmp_path: Path
) -> None:
    pytest.importorskip(framework)
    pytest.importorskip('proxystore')
    page = ROOT / 'docs' / 'pages' / 'beyond.md'
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


@pytest.mark.parametrize('version', ['3.11', '3.15'])
@pytest.mark.parametrize(
    ('checker', 'options', 'files'),
    [
        ('mypy', '--scripts-are-modules --python-version', 'files'),
        (
            'pyright',
            f'--pythonpath {sys.executable} --pythonversion',
            'include',
        ),
    ],
    ids=['mypy', 'pyright'],
)
def test_code_and_programs_are_typed(
    tmp_path: Path, checker: str, options: str, files: str, version: str
) -> None:
    pytest.importorskip(checker)
    for case in PROGRAMS:
        program = str(case.values[1])
        (tmp_path / f'{case.id}.py').write_text(program, encoding='utf-8')
    programs = map(str, tmp_path.glob('*.py'))
    code, printed = run_apart(
        *('-m', checker, *options.split(), version),
        *(*TOML['tool'][checker][files], *programs),
    )
    assert code == 0, printed


def test_readme_has_the_two_commands_of_ci() -> None:
    # CI takes them from there.
    commands = [
        command
        for block in blocks(README, 'sh').values()
        for command in block.splitlines()
        if command.startswith('python3 -m venv ')
    ]
    assert [command.split('/')[-1] for command in commands] == [
        'word_count.py',
        'tox',
    ]


def test_what_is_named_exists() -> None:
    files = re.findall(r'\b(?:benchmarks|docs|src|tests)/[\w./-]+\.\w+', ALL)
    assert [name for name in files if not (ROOT / name).exists()] == []

    extras = TOML['project']['optional-dependencies']
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
