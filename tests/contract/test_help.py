"""What `help()` shows: plain text, and examples that run."""

from __future__ import annotations

import doctest
import inspect
import re
from typing import Any

import pytest

import proxystore_local
from proxystore_local import LocalConnector
from proxystore_local import LocalKey

METHODS = [
    name
    for name, _ in inspect.getmembers(LocalConnector, inspect.isroutine)
    if not name.startswith('_')
]


DOCUMENTED: dict[str, Any] = {
    'LocalConnector': LocalConnector,
    'LocalKey': LocalKey,
    **{name: getattr(LocalConnector, name) for name in METHODS},
}


@pytest.mark.parametrize('name', ['LocalConnector', *METHODS])
def test_example(name: str) -> None:
    text = inspect.getdoc(DOCUMENTED[name]) or ''
    assert '\nExamples:\n' in text
    names: dict[str, Any] = {'LocalConnector': LocalConnector}
    if name in METHODS:
        names['connector'] = LocalConnector()
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize('name', DOCUMENTED)
def test_help_is_plain_text(name: str) -> None:
    text = inspect.getdoc(DOCUMENTED[name]) or ''
    assert text.isascii()
    assert re.findall(r'\]\[|\]\(|\\$|``|\*\*|^#', text, re.MULTILINE) == []


def test_version() -> None:
    assert re.fullmatch(r'\d+\.\d+\.\d+', proxystore_local.__version__)
