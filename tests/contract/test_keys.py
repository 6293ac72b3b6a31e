"""Keys equal ProxyStore's, and no two that are minted are the same."""

from __future__ import annotations

import itertools
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType

import pytest

from proxystore_local import keys
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from proxystore_local.keys import mint
from proxystore_local.keys import mint_batch
from tests.support.locks import PATIENCE
from tests.support.points import at_point
from tests.support.scenes import start


def test_a_key_equals_proxystores() -> None:
    upstream = pytest.importorskip('proxystore.connectors.local')
    ours, theirs = LocalKey(id='a'), upstream.LocalKey(id='a')
    assert ours == theirs
    assert hash(ours) == hash(theirs)
    assert ours.id == theirs.id == 'a'
    assert LocalConnector({ours: b'value'}).get(theirs) == b'value'


@pytest.mark.parametrize('count', [0, 1, 2, 1000])
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


def test_other_code_mints_at_every_point_of_a_threads_first() -> None:
    for point in itertools.count(1):
        minted: list[LocalKey] = []

        def add(minted: list[LocalKey] = minted) -> None:
            minted.append(mint())

        found = start(partial(at_point, point, add, add)).result(PATIENCE)
        assert len(set(minted)) == len(minted) == 1 + found
        if not found:
            break


@pytest.mark.parametrize('before', [0, 1])
def test_a_profiler_may_mint_before_each_call(before: int) -> None:
    minted = mint_batch(before)

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == 'c_call' and frame.f_code.co_filename == keys.__file__:
            minted.append(mint())

    sys.setprofile(profile)
    try:
        for _ in range(500):
            minted.append(mint())
    finally:
        sys.setprofile(None)
    assert len(set(minted)) == len(minted) > 500
