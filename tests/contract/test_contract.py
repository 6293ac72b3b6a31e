"""The connector's contract: once, for every lock and way of construction.

What ProxyStore documents of its own in-process connector runs against that
connector too, which shows that the tests ask for what it does.
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import inspect
import mmap
import types
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS

UPSTREAM_MODULE = 'proxystore.connectors.local'


def beside_a_second(**lock: Any) -> LocalConnector:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, **lock)
    beside.append(LocalConnector(store))
    return connector


def from_the_config_of_a_second(**lock: Any) -> LocalConnector:
    beside.append(LocalConnector(**lock))
    return LocalConnector.from_config(beside[0].config())


beside: list[LocalConnector] = []


CONSTRUCTIONS: dict[str, Callable[..., LocalConnector]] = {
    'fresh': LocalConnector,
    'on_a_given_dict': lambda **lock: LocalConnector({}, **lock),
    'beside_a_second': beside_a_second,
    'from_config': from_the_config_of_a_second,
    'from_config_with_data': lambda **lock: LocalConnector.from_config(
        {**LocalConnector(include_data_in_config=True).config(), **lock},
    ),
}

OURS = [
    pytest.param((lock, construction), id=f'{lock}-{construction}')
    for lock in LOCKS
    for construction in CONSTRUCTIONS
]
UPSTREAM = pytest.param(
    ('none', 'proxystore'),
    id='proxystore',
    marks=pytest.mark.skipif(
        importlib.util.find_spec('proxystore') is None,
        reason='proxystore is not installed',
    ),
)


def make(lock: str, construction: str) -> Any:
    if construction == 'proxystore':
        return importlib.import_module(UPSTREAM_MODULE).LocalConnector()
    beside.clear()
    return CONSTRUCTIONS[construction](lock=LOCKS[lock]())


@pytest.fixture(params=OURS)
def connector(request: pytest.FixtureRequest) -> Any:
    return make(*request.param)


@pytest.fixture(params=[UPSTREAM, *OURS])
def documented(request: pytest.FixtureRequest) -> Any:
    return make(*request.param)


# What ProxyStore documents.


def test_put_and_get(documented: Any) -> None:
    key = documented.put(b'value')
    assert documented.get(key) == b'value'


def test_put_mints_a_version_4_uuid(documented: Any) -> None:
    key = documented.put(b'value')
    assert type(key).__name__ == 'LocalKey'
    assert str(uuid.UUID(key.id)) == key.id
    assert uuid.UUID(key.id).version == 4


def test_get_of_a_missing_key_is_none(documented: Any) -> None:
    assert documented.get(documented.new_key()) is None


def test_exists(documented: Any) -> None:
    key = documented.new_key()
    assert documented.exists(key) is False
    documented.set(key, b'')
    assert documented.exists(key) is True


def test_evict(documented: Any) -> None:
    key = documented.put(b'value')
    assert documented.evict(key) is None
    assert not documented.exists(key)
    assert documented.get(key) is None


def test_evict_of_a_missing_key_is_silent(documented: Any) -> None:
    kept = documented.put(b'value')
    documented.evict(documented.new_key())
    assert documented.get(kept) == b'value'


def test_set_overwrites(documented: Any) -> None:
    key = documented.put(b'old')
    assert documented.set(key, b'new') is None
    assert documented.get(key) == b'new'


def test_set_on_a_key_from_anywhere(documented: Any) -> None:
    documented.set(LocalKey('anywhere'), b'value')
    assert documented.get(LocalKey('anywhere')) == b'value'


def test_new_key_stores_nothing(documented: Any) -> None:
    keys = {documented.new_key(), documented.new_key(b'ignored')}
    assert len(keys) == 2
    assert not any(map(documented.exists, keys))


def test_batches_keep_order(documented: Any) -> None:
    objs = [b'%d' % i for i in range(10)]
    keys = documented.put_batch(objs)
    assert len(set(keys)) == 10
    assert documented.get_batch(keys) == objs
    assert documented.get_batch(keys[::-1]) == objs[::-1]


def test_get_batch_with_duplicates_and_missing_keys(documented: Any) -> None:
    a, b = documented.put_batch([b'a', b'b'])
    documented.evict(b)
    assert documented.get_batch([a, b, a]) == [b'a', None, b'a']


def test_empty_batches(documented: Any) -> None:
    assert documented.put_batch([]) == []
    assert documented.get_batch([]) == []


def test_close_twice_keeps_the_data(documented: Any) -> None:
    key = documented.put(b'value')
    assert documented.close() is None
    assert documented.close() is None
    assert documented.get(key) == b'value'


def test_context_manager(documented: Any) -> None:
    with documented as entered:
        assert entered is documented
        key = entered.put(b'value')
    assert documented.get(key) == b'value'


def test_the_given_dict_is_used_itself(documented: Any) -> None:
    store: dict[LocalKey, bytes] = {LocalKey('old'): b'value'}
    connector = type(documented)(store)
    assert connector.get(LocalKey('old')) == b'value'
    key = connector.put(b'value')
    assert store[key] == b'value'


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


@pytest.mark.parametrize(
    'name',
    [
        '__init__',
        'close',
        'config',
        'evict',
        'exists',
        'from_config',
        'get',
        'get_batch',
        'new_key',
        'put',
        'put_batch',
        'set',
    ],
)
def test_signatures_are_upstreams(name: str) -> None:
    upstream = pytest.importorskip(UPSTREAM_MODULE)

    def parameters(connector: Any) -> list[tuple[str, Any, Any]]:
        signature = inspect.signature(getattr(connector, name))
        return [
            (parameter.name, parameter.kind, parameter.default)
            for parameter in signature.parameters.values()
        ]

    expected = parameters(upstream.LocalConnector)
    if name == '__init__':
        keyword = inspect.Parameter.KEYWORD_ONLY
        expected += [('lock', keyword, None), ('store_id', keyword, None)]
    assert parameters(LocalConnector) == expected


# What ours adds.


def test_leaving_the_context_closes() -> None:
    closed: list[LocalConnector] = []

    class Subclass(LocalConnector):
        def close(self) -> None:
            closed.append(self)

    with Subclass() as entered:
        assert closed == []
    assert closed == [entered]


def test_bytes_are_kept_as_the_same_object(connector: LocalConnector) -> None:
    obj = bytes(1000)
    batched, _ = connector.put_batch([obj, bytearray()])
    put = connector.put(obj)
    deferred = connector.new_key()
    connector.set(deferred, obj)
    for key in (batched, put, deferred):
        assert connector.get(key) is obj
        assert connector.get_batch([key])[0] is obj


def test_other_buffers_are_snapshotted(connector: LocalConnector) -> None:
    class Bytes(bytes):
        """What may run code of its own when it is freed."""

    source = bytearray(b'value')
    objs: tuple[Any, ...] = (
        source,
        memoryview(source),
        memoryview(bytearray(b'v-a-l-u-e'))[::2],
        array.array('B', source),
    )
    for obj in objs:
        keys = [connector.put(obj), *connector.put_batch([obj])]
        keys.append(connector.new_key())
        connector.set(keys[-1], obj)
        with memoryview(obj) as view:
            view[:1] = view[-1:]
        for key in keys:
            assert type(connector.get(key)) is bytes
            assert connector.get(key) == b'value'
        source[:] = b'value'
    for obj in (array.array('H', [1, 2]), Bytes(b'value')):
        for key in (connector.put(obj), *connector.put_batch([obj])):
            assert type(connector.get(key)) is bytes
            assert connector.get(key) == bytes(obj)


@pytest.mark.parametrize('obj', ['text', 5, None, [1], ['a'], object()])
def test_what_is_not_bytes_like_is_refused(
    connector: LocalConnector,
    obj: Any,
) -> None:
    key = connector.put(b'old')
    message = rf'not {type(obj).__name__}.*Store serializes'
    with pytest.raises(TypeError, match=message):
        connector.put(obj)
    with pytest.raises(TypeError, match=message):
        connector.set(key, obj)
    with pytest.raises(TypeError, match=message):
        connector.put_batch([b'good', obj])
    assert len(connector) == 1
    assert connector.get(key) == b'old'


def test_an_iterable_that_fails_stores_nothing(
    connector: LocalConnector,
) -> None:
    def objs() -> Any:
        yield b'good'
        raise LookupError('no more')

    with pytest.raises(LookupError):
        connector.put_batch(objs())
    assert len(connector) == 0


def test_batches_take_any_iterable(connector: LocalConnector) -> None:
    keys = connector.put_batch(b'%d' % i for i in range(3))
    assert connector.get_batch(iter(keys)) == [b'0', b'1', b'2']
    assert connector.get_batch(dict.fromkeys(keys)) == [b'0', b'1', b'2']
    assert set(connector.get_batch(set(keys))) == {b'0', b'1', b'2'}


CLOSED = mmap.mmap(-1, 10)
CLOSED.close()
NO_BATCHES: list[Any] = [
    *('text', '', b'bytes', b'', bytearray(b'bytes'), memoryview(b'bytes')),
    *(array.array('B', b'bytes'), mmap.mmap(-1, 10), CLOSED),
]


@pytest.mark.parametrize('single', NO_BATCHES, ids=range(len(NO_BATCHES)))
def test_what_is_no_batch_raises_type_error(
    connector: LocalConnector,
    single: Any,
) -> None:
    came = rf'.*\), not {type(single).__name__}$'
    with pytest.raises(TypeError, match=rf'iterable of keys \(get\({came}'):
        connector.get_batch(single)
    with pytest.raises(TypeError, match=rf'bytes-like objects \(put\({came}'):
        connector.put_batch(single)
    assert len(connector) == 0


@pytest.mark.parametrize('single', [5, None])
def test_what_cannot_be_iterated_over_raises_type_error(
    connector: LocalConnector,
    single: Any,
) -> None:
    for operation in (connector.get_batch, connector.put_batch):
        with pytest.raises(TypeError, match='is not iterable'):
            operation(single)
    assert len(connector) == 0


def test_a_single_key_or_a_mapping_raises_type_error(
    connector: LocalConnector,
) -> None:
    single: Any = LocalKey('a')
    with pytest.raises(TypeError, match=r'iterable of keys.*not LocalKey$'):
        connector.get_batch(single)
    mappings: list[Any] = [{b'a': b'b'}, types.MappingProxyType({b'a': b'b'})]
    for mapping in mappings:
        with pytest.raises(
            TypeError, match=r'put\(\) .*, not (dict|mappingproxy)$'
        ):
            connector.put_batch(mapping)
    assert len(connector) == 0


def test_any_hashable_tuple_is_a_key(connector: LocalConnector) -> None:
    connector.set(LocalKey('id'), b'value')
    key: Any = ('id',)
    assert connector.get(key) == b'value'
    assert connector.exists(key)
    assert connector.get_batch([key]) == [b'value']
    connector.set(key, b'new')
    connector.evict(key)
    assert len(connector) == 0


@pytest.mark.parametrize('key', [['list'], (['list'],)])
def test_an_unhashable_key_is_refused(
    connector: LocalConnector,
    key: Any,
) -> None:
    kept = connector.put(b'value')
    for call in (
        lambda: connector.get(key),
        lambda: connector.exists(key),
        lambda: connector.evict(key),
        lambda: connector.set(key, b''),
        lambda: connector.get_batch([kept, key]),
    ):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            call()
    # Neither the data nor the lock has suffered.
    assert len(connector) == 1
    connector.set(kept, b'new')
    assert connector.get(kept) == b'new'


def test_what_a_key_itself_raises_is_kept(connector: LocalConnector) -> None:
    class Key(LocalKey):
        def __eq__(self, other: object) -> bool:
            raise TypeError('from __eq__')

        __hash__ = LocalKey.__hash__

    connector.set(LocalKey('a'), b'value')
    key = Key('a')
    for call in (
        lambda: connector.get(key),
        lambda: connector.exists(key),
        lambda: connector.evict(key),
        lambda: connector.set(key, b''),
        lambda: connector.get_batch([key]),
    ):
        with pytest.raises(TypeError, match='from __eq__'):
            call()
    assert connector.get(LocalKey('a')) == b'value'


@pytest.mark.parametrize(
    ('config', 'came'),
    [
        ({'hostname': 'localhost', 'port': 6379}, "argument 'hostname'"),
        ({'include_data': True}, "argument 'include_data'"),
        ({'store_dict': []}, 'store_dict must be a plain dict, not list'),
        ({'store_id': 5}, 'store_id must be the text .*, not 5'),
        ([], "'list' object is not a mapping"),
        (None, "'NoneType' object is not a mapping"),
    ],
)
def test_what_is_no_configuration_is_refused(config: Any, came: str) -> None:
    class Subclass(LocalConnector):
        pass

    for kind in (LocalConnector, Subclass):
        with pytest.raises(
            TypeError,
            match=(
                rf'^config must be what config\(\) of a {kind.__name__} '
                rf'returned, .*include_data_in_config.*store_dict: .*{came}'
            ),
        ):
            kind.from_config(config)


def test_len_counts_the_objects(connector: LocalConnector) -> None:
    assert len(connector) == 0
    keys = connector.put_batch([b''] * 5)
    connector.put(b'')
    connector.evict(keys[0])
    assert len(connector) == 5


def test_an_empty_connector_is_true(connector: LocalConnector) -> None:
    assert len(connector) == 0
    assert connector or False


def test_repr_is_cheap_and_tells_no_data(connector: LocalConnector) -> None:
    connector.put(b'secret')
    assert 'LocalConnector' in repr(connector)
    assert 'secret' not in repr(connector)
    assert len(repr(connector)) < 200


def test_the_config_is_a_snapshot() -> None:
    connector = LocalConnector(include_data_in_config=True)
    key = connector.put(b'value')
    snapshot = connector.config()['store_dict']
    connector.evict(key)
    assert snapshot == {key: b'value'}
    assert type(snapshot) is dict


@pytest.mark.parametrize('lock', LOCKS)
def test_a_second_connector_sees_the_same(lock: str) -> None:
    store: dict[LocalKey, bytes] = {}
    connector = LocalConnector(store, lock=LOCKS[lock]())
    second = LocalConnector(store)
    key = connector.put(b'value')
    assert second.get(key) == b'value'
    second.evict(key)
    assert not connector.exists(key)
