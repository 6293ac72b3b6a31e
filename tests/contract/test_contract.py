"""The connector's contract.

What ProxyStore documents of its own in-process connector runs against that
connector too, which shows that the tests ask for what it does.
"""

from __future__ import annotations

import array
import inspect
import mmap
import re
import types
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from readerwriterlock.rwlock import RWLockFair

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.operations import OPERATIONS


def proxystores() -> Any:
    return pytest.importorskip('proxystore.connectors.local').LocalConnector()


OURS: dict[str, Callable[[], Any]] = {
    'default': LocalConnector,
    'RWLockFair': lambda: LocalConnector(lock=RWLockFair()),
}
DOCUMENTED = {**OURS, 'proxystore': proxystores}


@pytest.fixture(params=OURS)
def connector(request: pytest.FixtureRequest) -> Any:
    return OURS[request.param]()


@pytest.fixture(params=DOCUMENTED)
def documented(request: pytest.FixtureRequest) -> Any:
    return DOCUMENTED[request.param]()


# What ProxyStore documents.


def test_put_and_get(documented: Any) -> None:
    key = documented.put(b'value')
    assert type(key).__name__ == 'LocalKey'
    assert str(uuid.UUID(key.id, version=4)) == key.id
    assert documented.get(key) == b'value'


def test_set_exists_and_evict(documented: Any) -> None:
    key = documented.new_key()
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


def test_new_key_stores_nothing(documented: Any) -> None:
    keys = {documented.new_key(), documented.new_key(b'ignored')}
    assert len(keys) == 2
    assert not any(map(documented.exists, keys))


def test_any_tuple_is_a_key(documented: Any) -> None:
    documented.set(LocalKey('anywhere'), b'value')
    key = ('anywhere',)
    assert documented.get(key) == b'value'
    assert documented.get_batch([key]) == [b'value']
    documented.set(key, b'new')
    assert documented.get(LocalKey('anywhere')) == b'new'
    documented.evict(key)
    assert not documented.exists(LocalKey('anywhere'))


def test_a_key_equals_proxystores() -> None:
    upstream = pytest.importorskip('proxystore.connectors.local')
    ours, theirs = LocalKey(id='a'), upstream.LocalKey(id='a')
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert ours.id == theirs.id == 'a'
    assert LocalConnector({ours: b'value'}).get(theirs) == b'value'


def test_batches_keep_order(documented: Any) -> None:
    objs = [b'%d' % i for i in range(10)]
    keys = documented.put_batch(objs)
    assert len(set(keys)) == 10
    assert documented.get_batch(keys) == objs
    documented.evict(keys[1])
    assert documented.get_batch([keys[2], keys[1], keys[2]]) == [
        b'2',
        None,
        b'2',
    ]
    assert documented.put_batch([]) == documented.get_batch([]) == []


def test_close_twice_keeps_the_data(documented: Any) -> None:
    key = documented.put(b'value')
    assert documented.close() is None
    assert documented.close() is None
    assert documented.get(key) == b'value'


def test_leaving_the_context_closes(documented: Any) -> None:
    closed: list[Any] = []

    class Subclass(type(documented)):  # type: ignore[misc]
        def close(self) -> None:
            closed.append(self)

    with Subclass() as entered:
        assert closed == []
    assert closed == [entered]
    assert type(entered) is Subclass


def test_the_given_dict_is_used_itself(documented: Any) -> None:
    store: dict[LocalKey, bytes] = {LocalKey('old'): b'value'}
    connector = type(documented)(store)
    assert connector.get(LocalKey('old')) == b'value'
    key = connector.put(b'new')
    assert store[key] == b'new'


def test_config_round_trip(documented: Any) -> None:
    config = documented.config()
    rebuilt = type(documented).from_config(config)
    assert type(rebuilt) is type(documented)
    assert rebuilt.config() == config


def test_config_round_trip_with_data(documented: Any) -> None:
    connector = type(documented)(include_data_in_config=True)
    key = connector.put(b'value')
    config = connector.config()
    assert config == {
        'include_data_in_config': True,
        'store_dict': {key: b'value'},
    }
    assert type(documented).from_config(config).get(key) == b'value'


def test_signatures_are_proxystores() -> None:
    def parameters(kind: Any, name: str) -> list[inspect.Parameter]:
        signature = inspect.signature(getattr(kind, name))
        return [
            parameter.replace(annotation=parameter.empty)
            for parameter in signature.parameters.values()
        ]

    upstream = type(proxystores())
    names = [name for name in vars(upstream) if not name.startswith('_')]
    assert len(names) >= 11
    for name in names:
        expected = parameters(upstream, name)
        assert parameters(LocalConnector, name) == expected, name
    *given, lock, store_id = parameters(LocalConnector, '__init__')
    assert given == parameters(upstream, '__init__')
    assert lock.kind == store_id.kind == inspect.Parameter.KEYWORD_ONLY


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
        def put(self, obj: Any) -> LocalKey:
            return super().put(obj + b'!')

        def get(self, key: Any) -> bytes:
            raise AssertionError('called')

    connector = Subclass()
    (key,) = connector.put_batch([b'value'])
    assert connector.get_batch([key]) == [b'value']


def test_an_iterable_that_fails_stores_nothing(
    connector: LocalConnector,
) -> None:
    def objs() -> Any:
        yield b'good'
        raise LookupError('no more')

    with pytest.raises(LookupError):
        connector.put_batch(objs())
    assert len(connector) == 0


CLOSED = mmap.mmap(-1, 10)
CLOSED.close()
SINGLE = [
    *('text', '', b'bytes', b'', bytearray(b'bytes'), memoryview(b'bytes')),
    *(array.array('B', b'bytes'), mmap.mmap(-1, 10), CLOSED),
]
GET = r'^expected an iterable of keys \(get\(.*\), not '
PUT = r'^expected an iterable of bytes-like objects \(put\(.*\), not '


@pytest.mark.parametrize(
    ('operation', 'given', 'message'),
    [
        *[('get_batch', it, f'{GET}{type(it).__name__}$') for it in SINGLE],
        *[('put_batch', it, f'{PUT}{type(it).__name__}$') for it in SINGLE],
        ('get_batch', LocalKey('a'), f'{GET}LocalKey$'),
        ('put_batch', {b'a': b'b'}, f'{PUT}dict$'),
        ('put_batch', types.MappingProxyType({}), f'{PUT}mappingproxy$'),
        ('get_batch', None, 'is not iterable'),
        ('put_batch', 5, 'is not iterable'),
    ],
)
def test_what_is_no_batch_raises_type_error(
    operation: str,
    given: Any,
    message: str,
) -> None:
    connector = LocalConnector()
    with pytest.raises(TypeError, match=message):
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
