"""The examples that `help()` shows run, and annotations can be evaluated."""

from __future__ import annotations

import doctest
import inspect
import typing

from proxystore_local import LocalConnector


def test_each_public_method_has_an_example_that_runs() -> None:
    run: set[str] = set()
    for test in doctest.DocTestFinder().find(
        LocalConnector,
        'LocalConnector',
        extraglobs={'connector': LocalConnector()},
    ):
        if test.examples:
            assert doctest.DocTestRunner().run(test).failed == 0, test.name
            run.add(test.name)
    methods = inspect.getmembers(LocalConnector, inspect.isroutine)
    public = [name for name, _ in methods if not name.startswith('_')]
    assert run == {
        'LocalConnector',
        *(f'LocalConnector.{name}' for name in public),
    }


def test_annotations_can_be_evaluated() -> None:
    for name, method in inspect.getmembers(LocalConnector, inspect.isroutine):
        if name in vars(LocalConnector):
            assert typing.get_type_hints(method), name
