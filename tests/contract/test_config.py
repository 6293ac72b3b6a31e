"""What a configuration does without its data, what is refused and copied."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import warnings
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


@pytest.mark.parametrize(
    'rebuild',
    [LocalConnector.from_config, lambda config: LocalConnector(**config)],
)
def test_data_that_is_gone_is_one_warning_and_an_empty_connector(
    rebuild: Callable[[dict[str, Any]], LocalConnector],
) -> None:
    config = LocalConnector({LocalKey('a'): b'value'}).config()
    with pytest.warns(RuntimeWarning) as caught:
        rebuilt = rebuild(config)
    (warning,) = caught
    process = f'/{os.getpid()}/'
    for part in (config['store_id'], process, 'is empty', 'RedisConnector'):
        assert part in str(warning.message)
    assert len(rebuilt) == 0
    # The next one finds that one, as if it had been made first.
    key = rebuilt.put(b'value')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert rebuild(config).get(key) == b'value'
    assert rebuilt.config() == config


def test_the_warning_shows_where_the_connector_is_made() -> None:
    with pytest.warns(RuntimeWarning) as caught:
        LocalConnector(store_id='gone')
    assert caught[0].filename == __file__


@needs_fork
@pytest.mark.filterwarnings('ignore:.*fork:DeprecationWarning')
def test_a_forked_child_finds_its_own_copy_without_a_warning() -> None:
    connector = LocalConnector()
    config = connector.config()
    key = connector.put(b'before')

    def check() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            rebuilt = LocalConnector.from_config(config)
        assert rebuilt.get(key) is not None
        rebuilt.set(key, b'in the child')
        assert connector.get(key) == b'in the child'

    assert fork_inside(call, check) == 0
    assert LocalConnector.from_config(config).get(key) == b'before'


# What is refused.


class Subclass(LocalConnector):
    """Somebody's own connector."""


class Dict(dict[LocalKey, bytes]):
    """A dict that may run code of its own in any operation."""


LOCK = r'a lock of readerwriterlock.rwlock, such as RWLockFair\(\), not '


@pytest.mark.parametrize(
    ('config', 'message'),
    [
        ({'hostname': 'localhost', 'port': 6379}, "argument 'hostname'"),
        ({'include_data': True}, "argument 'include_data'"),
        ({'store_dict': []}, 'store_dict must be a plain dict, not list'),
        ({'store_dict': Dict()}, 'not Dict: any other may run code'),
        ({'store_id': 5}, 'store_id must be the text in .*, not 5'),
        ({'lock': 0}, f'{LOCK}0'),
        ({'lock': RWLockFair}, f'{LOCK}<class'),
        ({'lock': RWLockFair().gen_wlock()}, f'{LOCK}<.*_aWriter'),
        ({'lock': rwlock_async.RWLockFair()}, f'{LOCK}<.*rwlock_async'),
        ({'lock': threading.RLock()}, f'{LOCK}<unlocked'),
    ],
)
def test_what_is_no_option_raises_type_error(
    config: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(TypeError, match=message):
        LocalConnector(**config)
    expected = (
        r'^config must be what config\(\) of a Subclass returned, .*'
        rf'include_data_in_config.*store_dict: .*{message}'
    )
    with pytest.raises(TypeError, match=expected):
        Subclass.from_config(config)


@pytest.mark.parametrize('config', [[], None])
def test_what_is_no_dict_is_no_configuration(config: Any) -> None:
    with pytest.raises(TypeError, match='is not a mapping'):
        LocalConnector.from_config(config)


def test_what_is_refused_leaves_nothing_behind() -> None:
    store: dict[LocalKey, bytes] = {}
    lock: Any = 'fair'
    with pytest.raises(TypeError):
        LocalConnector(store, lock=lock)
    with pytest.raises(ValueError, match='store_dict or store_id, not both'):
        LocalConnector(store, **LocalConnector().config())
    LocalConnector(store, lock=RWLockFair())


# Copies: with a snapshot of the data, or not at all.

COPIES: dict[str, Callable[[Any], Any]] = {
    'copy': copy.copy,
    'deepcopy': copy.deepcopy,
    'pickle': lambda connector: pickle.loads(pickle.dumps(connector)),
}


@pytest.mark.parametrize('copied', COPIES.values(), ids=COPIES)
def test_without_data_it_cannot_be_copied(
    copied: Callable[[Any], Any],
) -> None:
    with pytest.raises(
        TypeError, match=r'process.*Redis.*include_data_in_config=True'
    ):
        copied(LocalConnector())


@pytest.mark.parametrize(
    'copied',
    [
        *COPIES.values(),
        lambda connector: Subclass.from_config(connector.config()),
    ],
    ids=[*COPIES, 'from_config'],
)
def test_a_copy_has_a_snapshot(copied: Callable[[Any], Any]) -> None:
    connector = Subclass(include_data_in_config=True, lock=RWLockFair())
    key = connector.put(b'value')
    result = copied(connector)
    assert type(result) is Subclass
    assert result.config() == connector.config()
    connector.evict(key)
    assert result.get(key) == b'value'
    result.put(b'only there')
    assert len(connector) == 0


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
