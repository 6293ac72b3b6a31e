"""Tests of the documentation: its programs run, and what it names exists."""

from __future__ import annotations

import configparser
import re
import shutil
import socket
import subprocess
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
    for package in 'proxystore', 'numpy':
        if re.search(rf'^\s*(from|import) {package}\b', program, re.MULTILINE):
            pytest.importorskip(package)
    file = tmp_path / 'program.py'
    file.write_text(program, encoding='utf-8')
    # Not in development mode, in which asyncio reports what takes long.
    code, printed = run_apart('-W', 'error', str(file))
    assert code == 0, printed
    # What it prints stands there as a comment, and no more.
    comments = re.findall(r'(?:^ *# .*\n)+', program, re.MULTILINE)
    expected = ''.join(f'# {line}\n' for line in printed.splitlines())
    assert expected in ['', *map(textwrap.dedent, comments)]


def run_on(workers: str, folder: Path, port: int = 6379) -> None:
    """Run the program of a page with the last part for some workers."""
    pytest.importorskip('proxystore')
    page = ROOT / 'docs' / 'pages' / 'beyond.md'
    (program,) = blocks(page, 'python').values()
    parts = blocks(page, ' { .python }').values()
    (last,) = (part for part in parts if workers in part)
    first, check = program.split('with (')[0], program.splitlines()[-1]
    file = folder / 'program.py'
    file.write_text(
        # Where Parsl writes its log.
        f'import os\nos.chdir({str(folder)!r})\n'
        f'{first}{last.replace("6379", str(port))}\n'
        f"if __name__ == '__main__':\n    {check}\n",
    )
    code, printed = run_apart(str(file))
    assert code == 0, printed


@pytest.mark.parametrize('framework', ['distributed', 'parsl'])
def test_program_runs_on_a_task_framework(
    framework: str, tmp_path: Path
) -> None:
    pytest.importorskip(framework)
    run_on(framework, tmp_path)


def test_program_runs_on_processes_with_redis(tmp_path: Path) -> None:
    redis = pytest.importorskip('redis')
    server = shutil.which('redis-server')
    if server is None:
        pytest.skip('no redis-server is installed')
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen(
        [server, '--bind', '127.0.0.1', '--port', str(port), '--save', ''],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert any('Ready to accept' in line for line in process.stdout)
            run_on('RedisConnector', tmp_path, port)
            with redis.Redis('127.0.0.1', port) as client:
                assert client.dbsize() == 0
        finally:
            process.kill()


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
