"""The connector's contract.

What ProxyStore documents of its own in-process connector runs against that
connector too, which shows that the tests ask for what it does.
"""

from __future__ import annotations

import array
import inspect
import re
import types
import uuid
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.operations import OPERATIONS


def proxystores() -> Any:
    return pytest.importorskip('proxystore.connectors.local').LocalConnector()


MAKERS: dict[str, Callable[[], Any]] = {
    'default': LocalConnector,
    'RWLockFair': lambda: LocalConnector(lock=RWLockFair()),
    'proxystore': proxystores,
}


@pytest.fixture(params=['default', 'RWLockFair'])
def connector(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


@pytest.fixture(params=MAKERS)
def documented(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]()


# What ProxyStore documents.


def test_put_and_get(documented: Any) -> None:
    key = documented.put(b'value')
    assert type(key).__name__ == 'LocalKey'
    assert {key} == {(key.id,)}  # Equal, and of the same hash.
    assert documented.get(key) == b'value'


def test_set_exists_and_evict(documented: Any) -> None:
    key = documented.new_key(b'ignored')
    assert key != documented.new_key()
    assert documented.get(key) is None
    assert documented.exists(key) is False
    assert documented.set(key, b'') is None
    assert documented.exists(key) is True
    assert documented.set(key, b'new') is None
    assert documented.get(key) == b'new'
    assert documented.evict(key) is None
    assert documented.exists(key) is False
    assert documented.get(key) is None
    # A key that is missing may be evicted.
    assert documented.evict(key) is None


def test_any_tuple_is_a_key(documented: Any) -> None:
    documented.set(LocalKey(id='anywhere'), b'value')
    key = ('anywhere',)
    assert documented.get(key) == b'value'
    assert documented.get_batch([key]) == [b'value']
    documented.set(key, b'new')
    documented.evict(LocalKey('anywhere'))
    assert not documented.exists(key)


def test_batches_keep_order(documented: Any) -> None:
    objs = [b'%d' % i for i in range(10)]
    keys = documented.put_batch(objs)
    assert len(set(keys)) == 10
    assert documented.get_batch(keys) == objs
    documented.evict(keys[1])
    disordered = [keys[2], keys[1], keys[2]]
    assert documented.get_batch(disordered) == [b'2', None, b'2']
    assert documented.put_batch([]) == documented.get_batch([]) == []


def test_close_twice_keeps_the_data(documented: Any) -> None:
    key = documented.put(b'value')
    assert documented.close() is None
    assert documented.close() is None
    assert documented.get(key) == b'value'


def test_leaving_the_context_closes(documented: Any) -> None:
    with mock.patch.object(type(documented), 'close') as close:
        with documented as entered:
            close.assert_not_called()
        close.assert_called_once_with()
    assert entered is documented


def test_the_given_dict_is_used_itself(documented: Any) -> None:
    store: dict[LocalKey, bytes] = {LocalKey('old'): b'value'}
    connector = type(documented)(store)
    assert connector.get(LocalKey('old')) == b'value'
    key = connector.put(b'new')
    assert store[key] == b'new'


def test_config_round_trip(documented: Any) -> None:
    connector = type(documented)(include_data_in_config=True)
    key = connector.put(b'value')
    data = {'include_data_in_config': True, 'store_dict': {key: b'value'}}
    assert connector.config() == data
    for config in (data, documented.config()):
        rebuilt = type(documented).from_config(config)
        assert type(rebuilt) is type(documented)
        assert rebuilt.config() == config


def test_signatures_are_proxystores() -> None:
    def parameters(method: Any) -> list[inspect.Parameter]:
        return [
            parameter.replace(annotation=parameter.empty)
            for parameter in inspect.signature(method).parameters.values()
        ]

    upstream = type(proxystores())
    names = [name for name in vars(upstream) if not name.startswith('_')]
    assert len(names) >= 11
    for name in (*names, '__init__'):
        expected = parameters(getattr(upstream, name))
        given = parameters(getattr(LocalConnector, name))
        own = given[len(expected) :]
        assert given == [*expected, *own], name
        assert {it.kind for it in own} <= {inspect.Parameter.KEYWORD_ONLY}


# What ours adds.


@pytest.mark.parametrize('count', [0, 1, 19, 20, 1000])
def test_minted_ids_are_version_4_uuids(count: int) -> None:
    connector = LocalConnector()
    keys = [*connector.put_batch([b''] * count), connector.new_key()]
    assert len(set(keys)) == count + 1
    for key in keys:
        # Were it of another version or variant, this would change it.
        assert str(uuid.UUID(key.id, version=4)) == key.id


def test_batches_take_any_iterable(connector: LocalConnector) -> None:
    keys = connector.put_batch(b'%d' % i for i in range(3))
    for given in iter(keys), tuple(keys), dict.fromkeys(keys):
        assert connector.get_batch(given) == [b'0', b'1', b'2']


def test_batches_do_not_call_what_a_subclass_overrides() -> None:
    class Subclass(LocalConnector):
        put = get = set = None  # type: ignore[assignment]

    connector = Subclass()
    keys = connector.put_batch([b'value'])
    assert connector.get_batch(keys) == [b'value']


def test_a_batch_with_a_bad_object_stores_nothing(
    connector: LocalConnector,
) -> None:
    objs: Any = [b'good', 'text']
    with pytest.raises(TypeError):
        connector.put_batch(objs)
    assert len(connector) == 0


@pytest.mark.parametrize(
    ('operation', 'given'),
    [
        ('get_batch', 'text'),
        ('get_batch', LocalKey('a')),
        ('get_batch', None),
        ('put_batch', ''),
        ('put_batch', array.array('B', b'bytes')),
        ('put_batch', types.MappingProxyType({})),
    ],
)
def test_what_is_no_batch_raises_type_error(
    operation: str,
    given: Any,
) -> None:
    connector = LocalConnector()
    with pytest.raises(TypeError, match='iterable'):
        getattr(connector, operation)(given)
    assert len(connector) == 0


@pytest.mark.parametrize(
    'operation', ['get', 'exists', 'evict', 'set', 'get_batch']
)
def test_an_unhashable_key_raises_type_error(
    connector: LocalConnector,
    operation: str,
) -> None:
    kept = connector.put(b'value')
    unhashable: Any = (['list'],)
    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        OPERATIONS[operation](connector, keys=[kept, unhashable], number=1)
    # Neither the data nor the lock has suffered.
    assert len(connector) == 1
    connector.set(kept, b'new')
    assert connector.get(kept) == b'new'


def test_an_empty_connector_is_true() -> None:
    connector = LocalConnector()
    assert len(connector) == 0
    assert connector or False


def test_repr_tells_the_lock_and_how_many_but_no_data(
    connector: LocalConnector,
) -> None:
    connector.put(b'secret')
    assert re.fullmatch(
        r'<LocalConnector at 0x\w+: 1 stored, include_data_in_config=False, '
        r'lock=(default|RWLockFair)>',
        repr(connector),
    )
