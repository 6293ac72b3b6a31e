"""Tests of the examples as commands, and of the word count's own check.

The examples need proxystore, which has to be told apart from a failure: where
it is not installed, these tests are reported as skipped.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import sysconfig
import termios
from pathlib import Path
from typing import Any

import pytest

from proxystore_local import LocalConnector
from tests.support.processes import load
from tests.support.processes import without

pytest.importorskip('proxystore')
pytest.importorskip('tqdm')

EXAMPLES = Path(__file__).parents[2] / 'docs' / 'examples'
WORD_COUNT = EXAMPLES / 'word_count.py'
both = pytest.mark.parametrize('example', ['word_count', 'beyond_one_process'])


def run(*arguments: object, strict: bool = True, **options: Any) -> Any:
    """Run Python as a user does, or with warnings as errors."""
    flags = ('-X', 'dev', '-W', 'error') if strict else ()
    return subprocess.run(
        [sys.executable, *flags, *map(str, arguments)],
        check=False,
        encoding='utf-8',
        timeout=100,
        **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | options,
    )


def table(output: str) -> dict[str, str]:
    """Read what the word count prints: names and numbers."""
    rows = [line.rsplit(maxsplit=1) for line in output.splitlines() if line]
    return dict(rows[:-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'site-packages').mkdir()
    (tmp_path / 'a.py').write_text('spam = größe(spam)\n', encoding='utf-8')
    (tmp_path / 'b.py').write_bytes(b'SPAM_1 = b"\xff" # not UTF-8')
    (tmp_path / 'sub' / 'empty.py').write_bytes(b'')
    (tmp_path / 'notes.txt').write_bytes(b'spam')
    (tmp_path / 'site-packages' / 'c.py').write_bytes(b'spam')
    return tmp_path


# Both examples, as commands.


@both
def test_help_has_the_defaults(example: str) -> None:
    wide = {**os.environ, 'COLUMNS': '1000'}
    done = run(EXAMPLES / f'{example}.py', '--help', env=wide)
    assert done.returncode == 0
    assert f'(default: {sysconfig.get_path("stdlib")}).\n' in done.stdout


@both
def test_bar_on_a_terminal(example: str, folder: Path) -> None:
    terminal, standard_error = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    try:
        done = run(EXAMPLES / f'{example}.py', folder, stderr=standard_error)
        assert done.returncode == 0
        assert b'100%' in os.read(terminal, 100_000)
    finally:
        os.close(terminal)
        os.close(standard_error)


@both
@pytest.mark.parametrize('encoding', ['utf-8', 'ascii'])
def test_no_bar_elsewhere(example: str, folder: Path, encoding: str) -> None:
    environment = {**os.environ, 'PYTHONIOENCODING': encoding}
    done = run(EXAMPLES / f'{example}.py', folder, env=environment)
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.splitlines()[-1].startswith('OK: ')
    if example == 'word_count':
        word = 'größe' if encoding == 'utf-8' else r'gr\xf6\xdfe'
        assert table(done.stdout)[word] == '1'


@both
def test_closed_pipe(example: str, folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run(EXAMPLES / f'{example}.py', folder, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (1, '')


@both
def test_ctrl_c(example: str, folder: Path) -> None:
    # While a worker is about to get an object, and so before the end.
    code = f"""
import signal
import sys
import threading
import {example} as example
from proxystore_local import LocalConnector

once = iter([threading.main_thread().ident])

class Interrupting(LocalConnector):
    def get(self, key):
        for thread in once:
            signal.pthread_kill(thread, signal.SIGINT)
        return super().get(key)

example.LocalConnector = Interrupting
sys.exit(example.main())
"""
    done = run('-c', code, folder, cwd=EXAMPLES)
    assert done.returncode == 130
    assert done.stdout == ''
    assert done.stderr == f'{example}.py: interrupted\n'


@both
def test_unreadable_file(
    example: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    wrong = load(EXAMPLES / f'{example}.py').main([str(folder)])
    assert wrong.startswith(f'{example}.py: cannot read a file: ')
    assert wrong.count('\n') == 0
    assert "Permission denied: '" in wrong


@both
@pytest.mark.parametrize('name', ['missing', 'notes.txt'])
def test_no_files(example: str, folder: Path, name: str) -> None:
    done = run(EXAMPLES / f'{example}.py', folder / name)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.endswith(f'no *.py files in {folder / name}\n')
    assert done.stderr.count('\n') == 1


@both
@pytest.mark.parametrize('module', ['proxystore', 'tqdm'])
def test_missing_module(example: str, module: str) -> None:
    done = run('-c', without(EXAMPLES / f'{example}.py', module))
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.count('\n') == 1
    assert f"no module named '{module}" in done.stderr
    assert "pip install '.[examples]'" in done.stderr


# The word count.


@pytest.mark.parametrize('threads', [1, 2, 8])
def test_small_folder(folder: Path, threads: int) -> None:
    before = sorted(folder.rglob('*'))
    done = run(WORD_COUNT, folder, '--threads', threads, '--top', 1)
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    del rows['seconds']
    used = min(threads, 3)
    assert rows == {
        'files': '3',
        'bytes': '46',
        'words': '7',
        'distinct words': '5',
        'objects put': str(3 + used * used),
        'threads': str(used),
        'spam': '3',
    }
    assert sorted(folder.rglob('*')) == before


@pytest.mark.parametrize('option', ['--threads', '--top'])
@pytest.mark.parametrize('number', ['0', '-1', 'x'])
def test_bad_number(option: str, number: str) -> None:
    done = run(WORD_COUNT, f'{option}={number}')
    assert (done.returncode, done.stdout) == (2, '')
    assert f'not a number from 1 up: {number!r}\n' in done.stderr


get: Any = LocalConnector.get
get_batch: Any = LocalConnector.get_batch


@pytest.mark.parametrize('threads', ['2', '8'])
@pytest.mark.parametrize(
    ('operation', 'faulty', 'message'),
    [
        (
            'get',
            lambda self, key: get(self, key).replace(b'spam', b'eggs', 1),
            'WRONG: one thread without a store counts differently',
        ),
        (
            'get_batch',
            lambda self, keys: get_batch(self, [keys[0]] * len(keys)),
            'WRONG: one thread without a store counts differently',
        ),
        ('evict', lambda self, key: None, 'WRONG: '),
        ('get', lambda self, key: None, 'error while resolving the target'),
        (
            'get_batch',
            lambda self, keys: [*get_batch(self, keys)[:-1], None],
            'a partial count is missing',
        ),
    ],
)
def test_faulty_connector(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: str,
    operation: str,
    faulty: Any,
    message: str,
) -> None:
    monkeypatch.setattr(LocalConnector, operation, faulty)
    # Twice: the names of the Stores are free again after the first.
    for _ in range(2):
        try:
            wrong = load(WORD_COUNT).main([str(folder), '--threads', threads])
        except Exception as error:
            wrong = str(error)
        assert message in wrong.replace('\n', ' ')
