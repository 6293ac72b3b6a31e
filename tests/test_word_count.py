"""Tests of the word count example: on real data, and that its check can fail.

The example needs proxystore, which has to be told apart from a failure: where
it is not installed, these tests are reported as skipped.
"""

from __future__ import annotations

import email
import json
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import load
from tests.harness import without

proxystore_store = pytest.importorskip('proxystore.store')
pytest.importorskip('tqdm')

SCRIPT = Path(__file__).parents[1] / 'docs' / 'examples' / 'word_count.py'


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the example as a user does, with warnings as errors."""
    return subprocess.run(
        [
            *(sys.executable, '-X', 'dev', '-W', 'error', str(SCRIPT)),
            *map(str, arguments),
        ],
        capture_output=True,
        check=False,
        encoding='utf-8',
        timeout=100,
    )


def table(output: str) -> dict[str, str]:
    """Read what the example prints: names and numbers."""
    rows = [line.rsplit(maxsplit=1) for line in output.splitlines() if line]
    return dict(rows[:-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'site-packages').mkdir()
    (tmp_path / 'a.py').write_bytes(b'spam = eggs(spam)\n')
    (tmp_path / 'b.py').write_bytes(b'SPAM_1 = b"\xff" # not UTF-8')
    (tmp_path / 'sub' / 'empty.py').write_bytes(b'')
    (tmp_path / 'notes.txt').write_bytes(b'spam')
    (tmp_path / 'site-packages' / 'c.py').write_bytes(b'spam')
    return tmp_path


@pytest.mark.parametrize('threads', [1, 2, 8])
def test_small_folder(folder: Path, threads: int) -> None:
    before = sorted(folder.rglob('*'))
    done = run(folder, '--threads', threads, '--top', 1)
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    del rows['seconds']
    used = min(threads, 3)
    assert rows == {
        'files': '3',
        'bytes': '43',
        'words': '7',
        'distinct words': '5',
        'objects put': str(3 + used * used),
        'threads': str(used),
        'spam': '3',
    }
    assert done.stdout.splitlines()[-1].startswith('OK: ')
    assert '100%' in done.stderr
    assert sorted(folder.rglob('*')) == before


@pytest.mark.parametrize('package', [email, json])
@pytest.mark.parametrize('threads', [1, 8])
def test_standard_library(package: Any, threads: int) -> None:
    done = run(package.__path__[0], '--threads', threads, '--top', 100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith('OK: ')
    assert package.__name__ in table(done.stdout)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{folder}/missing'], 'not a folder: {folder}/missing'),
        (['{folder}/a.py'], 'not a folder: {folder}/a.py'),
        (['{folder}/none'], 'no *.py files in {folder}/none'),
        (['--threads', '0'], "--threads: not a number from 1 up: '0'"),
        (['--threads', 'x'], "--threads: not a number from 1 up: 'x'"),
        (['--top', '-1'], "--top: not a number from 1 up: '-1'"),
        (['--unknown'], 'unrecognized arguments: --unknown'),
    ],
)
def test_bad_arguments(
    folder: Path,
    arguments: list[str],
    message: str,
) -> None:
    (folder / 'none').mkdir()
    done = run(*(argument.format(folder=folder) for argument in arguments))
    assert done.returncode == 2
    assert done.stdout == ''
    assert done.stderr.count('\n') == 1
    assert done.stderr.startswith('word_count.py: error: ')
    assert done.stderr.endswith(message.format(folder=folder) + '\n')


@pytest.mark.parametrize('module', ['proxystore', 'tqdm'])
def test_missing_module(folder: Path, module: str) -> None:
    done = subprocess.run(
        [sys.executable, '-c', without(SCRIPT, module)],
        capture_output=True,
        check=False,
        encoding='utf-8',
        timeout=100,
    )
    assert done.returncode == 1
    assert done.stderr.count('\n') == 1
    assert f"no module named '{module}" in done.stderr
    assert "pip install '.[examples]'" in done.stderr


# From here on the example runs in this process, with a connector that does
# something wrong.


@pytest.fixture
def word_count() -> Any:
    return load(SCRIPT)


class Altering(LocalConnector):
    """Connector whose objects are not what was put."""

    def get(self, key: LocalKey) -> bytes | None:
        data = super().get(key)
        return None if data is None else data.replace(b'spam', b'eggs', 1)


class Repeating(LocalConnector):
    """Connector that returns the first object of a batch for each key."""

    def get_batch(self, keys: Iterable[LocalKey]) -> list[bytes | Any | None]:
        keys = list(keys)
        return super().get_batch([keys[0]] * len(keys))


class Keeping(LocalConnector):
    """Connector that evicts nothing."""

    def evict(self, key: LocalKey) -> None:
        pass


class Losing(LocalConnector):
    """Connector that loses single objects."""

    def get(self, key: LocalKey) -> bytes | None:
        return None


class LosingBatches(LocalConnector):
    """Connector that loses the last object of a batch."""

    def get_batch(self, keys: Iterable[LocalKey]) -> list[bytes | Any | None]:
        return [*super().get_batch(keys)[:-1], None]


def test_in_process(
    word_count: Any,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    threads = threading.active_count()
    # Twice: the names of the Stores are free again after the first.
    for _ in range(2):
        assert word_count.main([str(folder), '--threads', '2']) == 0
        assert proxystore_store.get_store('word-count-0') is None
    assert threading.active_count() <= threads + 1, 'tqdm has one of its own'
    assert 'OK: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('connector', 'message'),
    [
        (Altering, 'counts differently'),
        (Repeating, 'counts differently'),
        (Keeping, '7 objects were left'),
    ],
)
def test_check_fails(
    word_count: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    connector: type[LocalConnector],
    message: str,
) -> None:
    monkeypatch.setattr(word_count, 'LocalConnector', connector)
    assert word_count.main([str(folder), '--threads', '2']) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith('WRONG: ')
    assert message in last


@pytest.mark.parametrize('threads', ['1', '8'])
@pytest.mark.parametrize(
    ('connector', 'message'),
    [
        (Losing, 'error while resolving the target object'),
        (LosingBatches, 'a partial count is missing'),
    ],
)
def test_worker_raises(
    word_count: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    connector: type[LocalConnector],
    message: str,
    threads: str,
) -> None:
    monkeypatch.setattr(word_count, 'LocalConnector', connector)
    with pytest.raises(Exception, match=message):
        word_count.main([str(folder), '--threads', threads])
    assert proxystore_store.get_store('word-count-0') is None


def test_unreadable_file(
    word_count: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def read_bytes(path: Path) -> bytes:
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    with pytest.raises(SystemExit) as raised:
        word_count.main([str(folder)])
    assert raised.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert 'error: cannot read ' in last
    assert last.endswith('.py: Permission denied')
