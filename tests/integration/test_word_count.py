"""The word count is right, and ends in a line if it is stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip('proxystore')

import word_count

from proxystore_local import LocalConnector
from tests.support.processes import ROOT
from tests.support.processes import run_apart

PROGRAM = ROOT / 'docs' / 'examples' / 'word_count.py'


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


def test_words_of_a_small_folder(folder: Path) -> None:
    code, printed = run_apart(
        *('-X', 'dev', '-W', 'error', str(PROGRAM)),
        *(str(folder), '--threads', '8'),
    )
    assert code == 0, printed
    *table, last = filter(None, printed.splitlines())
    rows = dict(line.rsplit(maxsplit=1) for line in table)
    # A file each, and the counts of each thread's words from each thread.
    assert (rows['objects put'], rows['threads']) == ('12', '3')
    counts = {name: rows[name] for name in ('words', 'spam', 'größe', 'utf')}
    assert counts == {'words': '7', 'spam': '3', 'größe': '1', 'utf': '1'}
    assert last.startswith('OK: ')


def test_a_faulty_connector_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalConnector, 'evict', lambda self, key: None)
    with pytest.raises(SystemExit, match='objects were left'):
        word_count.main([str(folder)])


# While a worker gets an object, and so before the end.
INTERRUPT = """
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
# Only standard output: what it may say on standard error is seen.
CLOSE_THE_PIPE = """
import os
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
"""


@pytest.mark.parametrize(
    ('fault', 'code', 'line'),
    [(INTERRUPT, 130, 'interrupted\n'), (CLOSE_THE_PIPE, 1, '')],
    ids=['ctrl_c', 'closed_pipe'],
)
def test_what_stops_it_takes_a_line(
    folder: Path, fault: str, code: int, line: str
) -> None:
    run_it = f"""
import runpy, sys
sys.path.insert(0, {str(PROGRAM.parent)!r})
runpy.run_path({str(PROGRAM)!r}, run_name='__main__')
"""
    assert run_apart('-c', fault + run_it, str(folder)) == (code, line)
