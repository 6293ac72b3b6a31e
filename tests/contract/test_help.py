"""The examples that `help()` shows run, annotations, and the version."""

from __future__ import annotations

import doctest
import inspect
import re
import typing

import pytest

import proxystore_local
from proxystore_local import LocalConnector

EXAMPLES = {
    test.name: test
    for test in doctest.DocTestFinder().find(
        LocalConnector,
        'LocalConnector',
        extraglobs={'connector': LocalConnector()},
    )
    if test.examples
}


def test_all_that_is_public_has_an_example() -> None:
    methods = inspect.getmembers(LocalConnector, inspect.isroutine)
    public = [name for name, _ in methods if not name.startswith('_')]
    assert EXAMPLES.keys() == {
        'LocalConnector',
        *(f'LocalConnector.{name}' for name in public),
    }


def test_annotations_can_be_evaluated() -> None:
    for name, method in inspect.getmembers(LocalConnector, inspect.isroutine):
        if name in vars(LocalConnector):
            assert typing.get_type_hints(method), name


@pytest.mark.parametrize('name', EXAMPLES)
def test_example(name: str) -> None:
    assert doctest.DocTestRunner().run(EXAMPLES[name]).failed == 0


def test_version() -> None:
    assert re.fullmatch(r'\d+\.\d+\.\d+', proxystore_local.__version__)
