"""Tests of the word count, and that its own check can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('proxystore')

from proxystore_local import LocalConnector
from tests.support.locks import PATIENCE
from tests.support.processes import load
from tests.support.processes import ROOT
from tests.support.processes import run_apart

SCRIPT = ROOT / 'docs' / 'examples' / 'word_count.py'
example = load(SCRIPT)


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


def test_standard_library() -> None:
    code, printed = run_apart(str(SCRIPT))
    assert code == 0, printed
    assert printed.splitlines()[-1].startswith('OK: ')


get: Any = LocalConnector.get
get_batch: Any = LocalConnector.get_batch


@pytest.mark.parametrize(
    ('operation', 'faulty', 'message'),
    [
        (
            'get',
            lambda self, key: get(self, key).replace(b'spam', b'eggs', 1),
            'WRONG: one thread without a store counts differently',
        ),
        ('evict', lambda self, key: None, 'objects were left'),
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
    operation: str,
    faulty: Any,
    message: str,
) -> None:
    monkeypatch.setattr(LocalConnector, operation, faulty)
    with pytest.raises((SystemExit, LookupError), match=message):
        example.main([str(folder)])


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('missing', r'^no \*\.py files in missing$'),
        ('--threads=0', '^--threads has to be 1 or more$'),
    ],
)
def test_bad_argument(argument: str, message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        example.main([argument])


@pytest.mark.parametrize(
    ('name', 'extra'),
    [('word_count', 'examples'), ('beyond_one_process', 'beyond')],
)
def test_missing_package(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, 'proxystore.store', None)
    message = rf"^no module named .*pip install '\.\[{extra}\]'"
    with pytest.raises(SystemExit, match=message):
        load(SCRIPT.with_name(f'{name}.py'))


both = pytest.mark.parametrize('name', ['word_count', 'beyond_one_process'])


def run(*arguments: object, **how: Any) -> Any:
    """Run an example as a command."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        check=False,
        cwd=SCRIPT.parent,
        encoding='utf-8',
        timeout=PATIENCE,
        **{'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE} | how,
    )


@both
def test_ctrl_c(name: str, folder: Path) -> None:
    # While a worker gets an object, and so before the end.
    program = f"""if True:
        import runpy
        import signal
        import threading
        from proxystore_local import LocalConnector

        once = iter([threading.main_thread().ident])
        get = LocalConnector.get

        def interrupt(self, key):
            for thread in once:
                signal.pthread_kill(thread, signal.SIGINT)
            return get(self, key)

        LocalConnector.get = interrupt
        runpy.run_path('{name}.py', run_name='__main__')
    """
    done = run('-c', program, folder)
    assert (done.returncode, done.stdout) == (130, '')
    assert done.stderr == 'interrupted\n'


@both
def test_closed_pipe_ends_in_silence(name: str, folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, 'w') as pipe:
        done = run(f'{name}.py', folder, stdout=pipe)
    assert (done.returncode, done.stderr) == (1, '')


@both
def test_unreadable_file_is_named(name: str, folder: Path) -> None:
    program = f"""if True:
        import runpy
        from pathlib import Path

        def read_bytes(path):
            raise PermissionError(13, 'Permission denied', str(path))

        Path.read_bytes = read_bytes
        runpy.run_path('{name}.py', run_name='__main__')
    """
    done = run('-c', program, folder)
    assert (done.returncode, done.stdout) == (1, '')
    (line,) = done.stderr.splitlines()
    assert "Permission denied: '" in line


def test_terminal_may_know_ascii_only(folder: Path) -> None:
    env = os.environ | {'PYTHONIOENCODING': 'ascii'}
    done = run(SCRIPT, folder, env=env)
    assert done.returncode == 0, done.stderr
    assert r'gr\xf6\xdfe' in done.stdout
