"""Pickling and copying: with the data, or not at all."""

from __future__ import annotations

import copy
import functools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_local import LocalConnector
from tests.support.locks import LOCKS


def sent_by_pickle(protocol: int, it: Any) -> Any:
    return pickle.loads(pickle.dumps(it, protocol))


COPIES: dict[str, Callable[[Any], Any]] = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    **{
        f'pickle-{protocol}': functools.partial(sent_by_pickle, protocol)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}

every_copy = pytest.mark.parametrize('copied', COPIES.values(), ids=COPIES)


class Subclass(LocalConnector):
    """Somebody's own connector."""


@every_copy
@pytest.mark.parametrize('lock', LOCKS)
@pytest.mark.parametrize('kind', [LocalConnector, Subclass])
def test_the_copy_has_a_snapshot(
    copied: Callable[[Any], Any],
    lock: str,
    kind: type[LocalConnector],
) -> None:
    connector = kind(include_data_in_config=True, lock=LOCKS[lock]())
    key = connector.put(b'value')
    result = copied(connector)
    assert type(result) is kind
    assert result.config() == connector.config()
    connector.evict(key)
    assert result.get(key) == b'value'
    result.put(b'only there')
    assert len(connector) == 0


@every_copy
def test_without_data_it_is_refused(copied: Callable[[Any], Any]) -> None:
    connector = LocalConnector()
    key = connector.put(b'value')
    with pytest.raises(
        TypeError, match=r'process.*Redis.*include_data_in_config=True'
    ):
        copied(connector)
    assert connector.get(key) == b'value'


@pytest.mark.usefixtures('tiny_switch_interval')
def test_pickling_while_others_write() -> None:
    connector = LocalConnector(include_data_in_config=True)
    start = threading.Barrier(2)

    def write() -> None:
        start.wait(30)
        for _ in range(300):
            for key in connector.put_batch([b'value'] * 5):
                connector.evict(key)

    writer = threading.Thread(target=write)
    writer.start()
    start.wait(30)
    for _ in range(100):
        assert len(pickle.loads(pickle.dumps(connector))) <= 5
    writer.join(30)
    assert not writer.is_alive()
    assert len(connector) == 0
