"""Tests of the documentation: its programs run, and what it names exists."""

from __future__ import annotations

import configparser
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import tomllib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

ROOT = Path(__file__).parents[1]
README = ROOT / 'README.md'
DOCUMENTS = [README, *sorted((ROOT / 'docs' / 'pages').glob('*.md'))]

BLOCK = re.compile(
    r'^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$',
    re.DOTALL | re.MULTILINE,
)


def blocks(document: Path, language: str) -> dict[str, str]:
    """Get the fenced blocks in a language, by where they start."""
    text = document.read_text(encoding='utf-8')
    return {
        f'{document.name}:{text.count(chr(10), 0, block.start()) + 1}': (
            textwrap.dedent(block['body'])
        )
        for block in BLOCK.finditer(text)
        if block['info'].split()[:1] == [language]
    }


PROGRAMS = {
    place: body
    for document in DOCUMENTS
    for place, body in blocks(document, 'python').items()
}


@pytest.mark.parametrize('place', PROGRAMS)
def test_program(place: str, tmp_path: Path) -> None:
    program = PROGRAMS[place]
    if re.search(r'^\s*(from|import) proxystore\b', program, re.MULTILINE):
        pytest.importorskip('proxystore')
    file = tmp_path / 'program.py'
    file.write_text(program, encoding='utf-8')
    done = subprocess.run(
        [sys.executable, '-X', 'dev', '-W', 'error', str(file)],
        capture_output=True,
        check=False,
        encoding='utf-8',
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ''
    # What it prints stands in its document.
    (document,) = (d for d in DOCUMENTS if place.startswith(f'{d.name}:'))
    assert done.stdout in ['', *blocks(document, 'text').values()]
    assert bool(done.stdout) == ('print(' in program)
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize('place', PROGRAMS)
def test_program_checks_itself(place: str) -> None:
    assert re.search(r'^ *assert ', PROGRAMS[place], re.MULTILINE)


def test_documents_have_programs() -> None:
    documents = {place.partition(':')[0] for place in PROGRAMS}
    assert documents >= {
        'README.md',
        'batches.md',
        'choosing-a-lock.md',
        'deferred.md',
        'free-threading.md',
        'index.md',
        'interrupts.md',
        'lock.md',
        'start.md',
        'threads.md',
    }


def test_errors_of_get_started() -> None:
    connector, data = LocalConnector(), dict[LocalKey, bytes]()
    first = LocalConnector(data)
    anything: Any = LocalConnector
    mistakes: list[Callable[[], object]] = [
        lambda: anything().put('spam'),
        lambda: anything().put_batch(b'spam'),
        lambda: anything().get_batch(connector.new_key()),
        lambda: anything().get(['spam']),
        lambda: pickle.dumps(connector),
        lambda: anything(OrderedDict()),
        lambda: anything(lock=threading.Lock()),
        lambda: anything(data, lock=RWLockFair()),
        lambda: anything.from_config({'hostname': 'localhost'}),
    ]
    messages = []
    for mistake in mistakes:
        with pytest.raises((TypeError, ValueError)) as caught:
            mistake()
        messages.append(str(caught.value))
    assert first.get_batch([]) == []
    page = ROOT / 'docs' / 'pages' / 'start.md'
    rows = re.findall(
        r'^\| `([^`]+)` \|',
        page.read_text(encoding='utf-8'),
        re.MULTILINE,
    )
    assert len(rows) == len(messages)
    for row, message in zip(rows, messages):
        assert row in message


def test_readme_starts_with_ten_lines() -> None:
    first, *_ = blocks(README, 'python').values()
    assert len(list(filter(None, first.splitlines()))) <= 10


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    text = document.read_text(encoding='utf-8')
    named = set(
        re.findall(r'`([\w./-]+/[\w./-]+\.(?:md|py|toml|yml))`', text)
        + re.findall(r'\bdocs/[\w./-]+\.(?:py|yml)', text),
    )
    if document == README:
        named |= set(re.findall(r'\]\((?!https://)([^)#]+)', text))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_tox_environments_exist() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / 'tox.ini', encoding='utf-8')
    defined = {
        section.removeprefix('testenv:')
        for section in tox.sections()
        if section.startswith('testenv:')
    }
    # An environment's name is made of factors, and each can be run alone. They
    # need not be listed: those with a command of their own exist as well.
    commands = tox['testenv']['commands']
    defined |= set(re.findall(r'^(\w+): ', commands, re.MULTILINE))
    defined |= set(re.findall(r'[\w-]+', tox['tox']['env_list']))
    defined |= set(re.findall(r'\w+', tox['tox']['env_list']))
    text = '\n'.join(path.read_text(encoding='utf-8') for path in DOCUMENTS)
    named = set(re.findall(r'\btox -e ([\w-]+)', text))
    assert named
    factors = {factor for name in named for factor in name.split('-')}
    assert factors <= defined


def test_extras_exist() -> None:
    project = tomllib.loads(
        (ROOT / 'pyproject.toml').read_text(encoding='utf-8'),
    )['project']
    text = '\n'.join(path.read_text(encoding='utf-8') for path in DOCUMENTS)
    named = set(re.findall(r"'\.\[(\w+)\]'", text))
    assert {'examples', 'proxystore'} <= named
    assert named <= set(project['optional-dependencies'])


def test_readme_has_the_two_commands() -> None:
    commands = blocks(README, 'sh').values()
    install = 'python3 -m venv .venv && .venv/bin/pip install'
    run = '.venv/bin/python docs/examples/word_count.py'
    assert f"{install} '.[examples]' && {run}\n" in commands
    assert f'{install} tox && .venv/bin/tox\n' in commands
