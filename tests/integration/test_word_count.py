"""Tests of the word count, and that its own check can fail."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('proxystore')

import word_count

from proxystore_local import LocalConnector
from tests.support.processes import ROOT
from tests.support.processes import run_apart

SCRIPT = ROOT / 'docs' / 'examples' / 'word_count.py'


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


def test_small_folder(folder: Path) -> None:
    code, printed = run_apart(
        *('-X', 'dev', '-W', 'error', str(SCRIPT)),
        *(str(folder), '--threads', '8'),
    )
    assert code == 0, printed
    *table, last = filter(None, printed.splitlines())
    rows = dict(line.rsplit(maxsplit=1) for line in table)
    del rows['seconds']
    assert rows == {
        'files': '3',
        'bytes': '46',
        'words': '7',
        'distinct words': '5',
        # A file each, and the counts of each thread's words from each thread.
        'objects put': '12',
        'threads': '3',
        'spam': '3',
        'größe': '1',
        'b': '1',
        'not': '1',
        'utf': '1',
    }
    assert last.startswith('OK: ')


get: Any = LocalConnector.get


@pytest.mark.parametrize(
    ('operation', 'faulty', 'message'),
    [
        (
            'get',
            lambda self, key: get(self, key).replace(b'spam', b'eggs', 1),
            'WRONG: one thread without a store counts differently',
        ),
        ('evict', lambda self, key: None, 'objects were left'),
    ],
)
def test_faulty_connector(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    faulty: Any,
    message: str,
) -> None:
    monkeypatch.setattr(LocalConnector, operation, faulty)
    with pytest.raises(SystemExit, match=message):
        word_count.main([str(folder)])


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('missing', r'^no \*\.py files in missing$'),
        ('--threads=0', '^--threads has to be 1 or more$'),
    ],
)
def test_bad_argument(argument: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        word_count.main([argument])


@pytest.mark.parametrize(
    ('name', 'extra'),
    [('word_count', 'proxystore'), ('beyond_one_process', 'beyond')],
)
def test_missing_package(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, 'proxystore.store', None)
    message = rf"^no module named .*pip install '\.\[{extra}\]'"
    with pytest.raises(SystemExit, match=message):
        runpy.run_path(str(SCRIPT.with_name(f'{name}.py')))


both = pytest.mark.parametrize('name', ['word_count', 'beyond_one_process'])


def run_after(program: str, name: str, folder: Path) -> tuple[int, str]:
    """Run a program, and then an example as a command."""
    program += f"""
import runpy, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
runpy.run_path({str(SCRIPT.with_name(f'{name}.py'))!r}, run_name='__main__')
"""
    return run_apart('-c', program, str(folder))


@both
def test_ctrl_c(name: str, folder: Path) -> None:
    # While a worker gets an object, and so before the end.
    program = """
import signal, threading
from proxystore_local import LocalConnector

once = iter([threading.main_thread().ident])
get = LocalConnector.get

def interrupt(self, key):
    for thread in once:
        signal.pthread_kill(thread, signal.SIGINT)
    return get(self, key)

LocalConnector.get = interrupt
"""
    assert run_after(program, name, folder) == (130, 'interrupted\n')


@both
def test_closed_pipe_ends_in_silence(name: str, folder: Path) -> None:
    # Only standard output: what it may say on standard error is seen.
    program = """
import os
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
"""
    assert run_after(program, name, folder) == (1, '')


@both
def test_unreadable_file_is_named(name: str, folder: Path) -> None:
    program = """
from pathlib import Path

def read_bytes(path):
    raise PermissionError(13, 'Permission denied', str(path))

Path.read_bytes = read_bytes
"""
    code, printed = run_after(program, name, folder)
    assert code == 1
    (line,) = printed.splitlines()
    assert "Permission denied: '" in line


def test_terminal_may_know_ascii_only(folder: Path) -> None:
    code, printed = run_apart(
        str(SCRIPT),
        str(folder),
        PYTHONIOENCODING='ascii',
    )
    assert code == 0, printed
    assert r'gr\xf6\xdfe' in printed
