"""What a configuration does without its data, what is refused and copied."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Callable
from operator import call
from typing import Any

import pytest
from readerwriterlock import rwlock_async
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.processes import fork_inside
from tests.support.processes import needs_fork

# A configuration in place of its data.


def test_data_that_is_gone_is_one_warning_and_an_empty_connector() -> None:
    config = LocalConnector({LocalKey('a'): b'value'}).config()
    with pytest.warns(RuntimeWarning) as caught:
        rebuilt = LocalConnector(**config)
    (warning,) = caught
    assert warning.filename == __file__
    process = f'/{os.getpid()}/'
    for part in (config['store_id'], process, 'is empty', 'RedisConnector'):
        assert part in str(warning.message)
    assert len(rebuilt) == 0
    # The next one finds that one, as if it had been made first.
    key = rebuilt.put(b'value')
    assert LocalConnector.from_config(config).get(key) == b'value'
    assert rebuilt.config() == config
    del rebuilt
    with pytest.warns(RuntimeWarning, match='is empty'):
        LocalConnector.from_config(config)


@needs_fork
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_a_forked_child_finds_its_own_copy_without_a_warning() -> None:
    connector = LocalConnector()
    config = connector.config()
    key = connector.put(b'before')

    def check() -> None:
        rebuilt = LocalConnector.from_config(config)
        rebuilt.set(key, b'in the child')
        assert connector.get(key) == b'in the child'

    assert fork_inside(call, check) == 0
    assert connector.get(key) == b'before'


# What is refused.


class Dict(dict[LocalKey, bytes]):
    """A dict that may run code of its own in any operation."""


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], 'a mapping'),
        ({'hostname': 'localhost', 'port': 6379}, "argument 'hostname'"),
        ({'store_dict': []}, 'store_dict must be a plain dict, not list'),
        ({'store_dict': Dict()}, 'store_dict must be a plain dict, not Dict'),
        ({'store_id': 5}, 'store_id must be the text in config'),
        ({'lock': 0}, 'lock must be a lock of readerwriterlock'),
        ({'lock': RWLockFair}, 'lock must be a lock of readerwriterlock'),
        ({'lock': rwlock_async.RWLockFair()}, 'lock must be a lock of'),
    ],
)
def test_what_is_no_option_raises_type_error(
    options: Any,
    message: str,
) -> None:
    with pytest.raises(TypeError, match=message):
        LocalConnector(**options)
    with pytest.raises(TypeError, match=f'^config must be .*: .*{message}'):
        LocalConnector.from_config(options)


def test_what_is_refused_leaves_nothing_behind() -> None:
    store: dict[LocalKey, bytes] = {}
    lock: Any = 'fair'
    with pytest.raises(TypeError):
        LocalConnector(store, lock=lock)
    with pytest.raises(ValueError, match='not both'):
        LocalConnector(store, **LocalConnector().config())
    LocalConnector(store, lock=RWLockFair())


# Copies: with a snapshot of the data, or not at all.


class Subclass(LocalConnector):
    """Somebody's own connector."""


@pytest.mark.parametrize(
    'copied',
    [
        copy.copy,
        copy.deepcopy,
        lambda connector: pickle.loads(pickle.dumps(connector)),
    ],
    ids=['copy', 'deepcopy', 'pickle'],
)
def test_a_copy_has_a_snapshot_of_the_data(
    copied: Callable[[Any], Any],
) -> None:
    connector = Subclass(include_data_in_config=True, lock=RWLockFair())
    key = connector.put(b'value')
    result = copied(connector)
    assert type(result) is Subclass
    assert result.config() == connector.config()
    connector.evict(key)
    assert result.get(key) == b'value'
    result.put(b'only there')
    assert len(connector) == 0
    # Without data it cannot be copied.
    with pytest.raises(
        TypeError, match=r'process.*Redis.*include_data_in_config=True'
    ):
        copied(LocalConnector())


def test_from_config_copies_the_snapshot_and_the_constructor_does_not() -> (
    None
):
    connector = LocalConnector(include_data_in_config=True)
    key = connector.put(b'value')
    config = connector.config()
    LocalConnector.from_config(config).evict(key)
    assert config['store_dict'] == {key: b'value'}
    LocalConnector(**config).evict(key)
    assert config['store_dict'] == {}
    assert connector.get(key) == b'value'
