"""Keys equal ProxyStore's, and no two that are minted are the same."""

from __future__ import annotations

import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.keys import mint
from proxystore_local.keys import mint_batch


def test_a_key_is_a_named_tuple() -> None:
    key = LocalKey('a')
    assert key == ('a',)
    assert key.id == 'a'
    assert repr(key) == "LocalKey(id='a')"
    assert LocalKey(id='a') == key
    assert pickle.loads(pickle.dumps(key)) == key


def test_a_key_equals_proxystores() -> None:
    upstream = pytest.importorskip('proxystore.connectors.local')
    ours, theirs = LocalKey('a'), upstream.LocalKey('a')
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert ours != upstream.LocalKey('b')
    connector = LocalConnector({ours: b'value'})
    assert connector.get(theirs) == b'value'


@pytest.mark.parametrize('count', [0, 1, 2, 1000])
def test_minted_ids_are_version_4_uuids(count: int) -> None:
    keys = [*mint_batch(count), mint()]
    assert len(set(keys)) == count + 1
    for key in keys:
        parsed = uuid.UUID(key.id)
        assert str(parsed) == key.id
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122


@pytest.mark.usefixtures('tiny_switch_interval')
def test_threads_never_mint_the_same_key() -> None:
    def work(_: int) -> list[LocalKey]:
        return [mint() for _ in range(500)] + mint_batch(500)

    with ThreadPoolExecutor(8) as pool:
        keys = [key for keys in pool.map(work, range(8)) for key in keys]
    assert len(set(keys)) == len(keys) == 8 * 1000
