"""A configuration finds its data in its process, and nowhere else."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.processes import needs_fork
from tests.support.processes import run_apart


class Text(str):
    """As some readers of configuration files have it."""

    __slots__ = ()


REBUILT: dict[str, Callable[[dict[str, Any]], LocalConnector]] = {
    'from_config': LocalConnector.from_config,
    'the_class': lambda config: LocalConnector(**config),
    'with_a_subclass_of_str': lambda config: LocalConnector(
        **{**config, 'store_id': Text(config['store_id'])},
    ),
    'through_json': lambda config: LocalConnector.from_config(
        json.loads(json.dumps(config)),
    ),
}

rebuilt_in_each_way = pytest.mark.parametrize('rebuild', REBUILT.values())


def config_of_the_dead() -> dict[str, Any]:
    connector = LocalConnector()
    connector.put(b'value')
    return connector.config()


def run_elsewhere(program: str, config: dict[str, Any]) -> list[str]:
    """Run a program in another process, and return the lines it prints."""
    code, printed = run_apart(
        *('-c', inspect.cleandoc(program), json.dumps(config)),
    )
    assert code == 0, printed
    return printed.splitlines()


@rebuilt_in_each_way
def test_a_rebuilt_connector_is_on_the_same_data(
    rebuild: Callable[[dict[str, Any]], LocalConnector],
) -> None:
    connector = LocalConnector()
    key = connector.put(b'before')
    rebuilt = rebuild(connector.config())
    assert rebuilt.get(key) == b'before'
    rebuilt.set(key, b'after')
    assert connector.get(key) == b'after'
    assert rebuilt.config() == connector.config()
    # The first is not needed: each of them finds the data as well.
    config = connector.config()
    del connector
    assert rebuild(config).get(key) == b'after'


def test_all_connectors_on_one_dict_have_one_identifier() -> None:
    store: dict[LocalKey, bytes] = {}
    first, second = LocalConnector(store), LocalConnector(store)
    assert first.config() == second.config()
    assert first.config() != LocalConnector().config()
    assert first.config() != LocalConnector(store.copy()).config()


@rebuilt_in_each_way
def test_a_rebuilt_connector_has_the_same_lock(
    rebuild: Callable[[dict[str, Any]], LocalConnector],
) -> None:
    written: list[str] = []

    class Noting(RWLockFair):
        def gen_wlock(self) -> Any:
            written.append('by the lock')
            return super().gen_wlock()

    lock = Noting()
    connector = LocalConnector(lock=lock)
    config = connector.config()
    # It is not part of the configuration, which goes through text.
    assert config.keys() == {'include_data_in_config', 'store_id'}
    rebuild(config).put(b'value')
    LocalConnector(**config, lock=lock).put(b'value')
    assert written == ['by the lock'] * 2
    assert len(connector) == 2
    with pytest.raises(ValueError, match='another lock'):
        LocalConnector(**config, lock=RWLockFair())


def test_a_configuration_keeps_nothing_alive() -> None:
    class Key:
        pass

    connector, key = LocalConnector(), Key()
    connector.set((key,), b'value')
    freed = weakref.ref(key)
    config = connector.config()
    rebuilt = LocalConnector.from_config(config)
    del connector, key
    assert freed() is not None
    del rebuilt
    assert freed() is None
    with pytest.warns(RuntimeWarning, match='freed with its last connector'):
        assert len(LocalConnector.from_config(config)) == 0


@rebuilt_in_each_way
def test_data_that_is_gone_is_one_warning_and_an_empty_connector(
    rebuild: Callable[[dict[str, Any]], LocalConnector],
) -> None:
    config = config_of_the_dead()
    with pytest.warns(RuntimeWarning) as caught:
        rebuilt = rebuild(config)
    (warning,) = caught
    message = str(warning.message)
    assert f'the data of store_id {config["store_id"]!r}' in message
    assert 'is empty' in message
    assert 'RedisConnector' in message
    _, process, _ = config['store_id'].split('/')
    assert int(process) == os.getpid()
    assert len(rebuilt) == 0
    # The next one finds that one, as if it had been made first.
    assert rebuilt.config() == config
    key = rebuilt.put(b'value')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert rebuild(config).get(key) == b'value'


def test_the_warning_shows_where_the_connector_is_made() -> None:
    config = config_of_the_dead()
    with pytest.warns(RuntimeWarning) as caught:
        LocalConnector(**config)
    assert caught[0].filename == __file__


def test_another_process_is_warned_once() -> None:
    connector = LocalConnector()
    connector.put(b'value')
    program = """
        import json, sys, warnings
        from proxystore_local import LocalConnector
        config = json.loads(sys.argv[1])
        with warnings.catch_warnings(record=True, action='always') as caught:
            rebuilt = LocalConnector.from_config(config)
            key = rebuilt.put(b'elsewhere')
            print(LocalConnector(**config).get(key))
        print(*[warning.category.__name__ for warning in caught])
        print(caught[0].message)
        print(rebuilt.config() == config)
    """
    data, category, message, equal = run_elsewhere(program, connector.config())
    assert data == "b'elsewhere'"
    assert category == 'RuntimeWarning'
    assert f'/{os.getpid()}/' in message
    assert equal == 'True'
    assert len(connector) == 1


@needs_fork
def test_a_forked_child_finds_its_own_copy_without_a_warning() -> None:
    program = """
        import json, os, signal, sys, warnings
        from proxystore_local import LocalConnector
        connector = LocalConnector()
        config = connector.config()
        key = connector.put(b'before')
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            warnings.simplefilter('error')
            rebuilt = LocalConnector.from_config(config)
            print(rebuilt.get(key), rebuilt.config() == config, flush=True)
            rebuilt.set(key, b'in the child')
            print(connector.get(key), flush=True)
            os._exit(0)
        print(os.waitpid(pid, 0)[1], flush=True)
        print(LocalConnector.from_config(config).get(key))
    """
    assert run_elsewhere(program, {}) == [
        "b'before' True",
        "b'in the child'",
        '0',
        "b'before'",
    ]


def test_a_dict_and_an_identifier_are_refused() -> None:
    store: dict[LocalKey, bytes] = {}
    config = LocalConnector().config()
    with pytest.raises(ValueError, match='one of them, not both'):
        LocalConnector(store, **config)
    # Nothing was registered for it.
    lock = RWLockFair()
    LocalConnector(store, lock=lock).put(b'value')
    assert len(store) == 1


def test_a_snapshot_has_no_identifier() -> None:
    connector = LocalConnector(include_data_in_config=True)
    assert connector.config().keys() == {
        'include_data_in_config',
        'store_dict',
    }
    rebuilt = LocalConnector.from_config(connector.config())
    connector.put(b'value')
    assert len(rebuilt) == 0


def test_a_snapshot_makes_independent_connectors() -> None:
    connector = LocalConnector(include_data_in_config=True)
    key = connector.put(b'value')
    config = connector.config()
    before = {**config, 'store_dict': config['store_dict'].copy()}
    first = LocalConnector.from_config(config)
    second = LocalConnector.from_config(config)
    first.evict(key)
    second.put(b'second')
    assert (len(first), len(second), len(connector)) == (0, 2, 1)
    assert config == before
    # The constructor uses the dict itself, as ever.
    LocalConnector(**config).evict(key)
    assert config['store_dict'] == {}


def test_only_a_snapshot_can_be_pickled() -> None:
    with pytest.raises(TypeError, match='include_data_in_config=True'):
        pickle.dumps(LocalConnector())
