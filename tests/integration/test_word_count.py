"""Tests of the word count, and that its own check can fail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip('proxystore')

from proxystore.proxy import ProxyResolveError

from proxystore_local import LocalConnector
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


@pytest.mark.parametrize('threads', [1, 8])
def test_small_folder(folder: Path, threads: int) -> None:
    code, printed = run_apart(
        *('-X', 'dev', '-W', 'error', str(SCRIPT)),
        *(str(folder), '--threads', str(threads)),
    )
    assert code == 0, printed
    *table, last = filter(None, printed.splitlines())
    rows = dict(line.rsplit(maxsplit=1) for line in table)
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
        (
            'get_batch',
            lambda self, keys: get_batch(self, [keys[0]] * len(keys)),
            'WRONG: one thread without a store counts differently',
        ),
        ('evict', lambda self, key: None, 'objects were left'),
        ('get', lambda self, key: None, 'an error while resolving'),
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
    with pytest.raises((SystemExit, LookupError, ProxyResolveError)) as raised:
        example.main([str(folder)])
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['missing'], 'no *.py files in missing'),
        (['--threads', '0'], '--threads has to be 1 or more'),
    ],
)
def test_bad_arguments(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit) as raised:
        example.main(arguments)
    assert raised.value.code == message


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'proxystore.store', None)
    with pytest.raises(SystemExit) as raised:
        load(SCRIPT)
    message = str(raised.value.code)
    assert "no module named 'proxystore.store': run " in message
    assert "pip install '.[examples]'" in message
