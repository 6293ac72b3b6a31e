"""Keys equal ProxyStore's, and no two that are minted are the same."""

from __future__ import annotations

import sys
import tracemalloc
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.keys import mint
from proxystore_local.keys import mint_batch
from tests.support.locks import PATIENCE
from tests.support.scenes import start


def test_a_key_equals_proxystores() -> None:
    upstream = pytest.importorskip('proxystore.connectors.local')
    ours, theirs = LocalKey(id='a'), upstream.LocalKey(id='a')
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert ours.id == theirs.id == 'a'
    assert LocalConnector({ours: b'value'}).get(theirs) == b'value'


@pytest.mark.parametrize('count', [0, 1, 9, 10, 1000])
def test_minted_ids_are_version_4_uuids(count: int) -> None:
    keys = [*mint_batch(count), mint()]
    assert len(set(keys)) == count + 1
    for key in keys:
        # Were it of another version or variant, this would change it.
        assert str(uuid.UUID(key.id, version=4)) == key.id


@pytest.mark.usefixtures('tiny_switch_interval')
def test_threads_never_mint_the_same_key() -> None:
    def work(_: int) -> list[LocalKey]:
        return [mint() for _ in range(500)] + mint_batch(500)

    with ThreadPoolExecutor(8) as pool:
        keys = [key for keys in pool.map(work, range(8)) for key in keys]
    assert len(set(keys)) == len(keys) == 8 * 1000


def test_a_thread_that_mints_keeps_nothing_but_the_key() -> None:
    def work() -> int:
        before = tracemalloc.get_traced_memory()[0]
        key = mint()
        return tracemalloc.get_traced_memory()[0] - before - sys.getsizeof(key)

    mint()
    tracemalloc.start()
    try:
        assert start(work).result(PATIENCE) < 500
    finally:
        tracemalloc.stop()
