"""ProxyStore's protocols are met, at run time and for type checkers."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

if TYPE_CHECKING:
    from proxystore.connectors.multi import MultiConnector
    from proxystore.connectors.multi import Policy
    from proxystore.connectors.protocols import Connector
    from proxystore.connectors.protocols import DeferrableConnector
    from proxystore.proxy import Proxy
    from proxystore.store import Store
    from proxystore.store.config import ConnectorConfig
    from proxystore.store.config import StoreConfig
    from readerwriterlock.rwlock import RWLockFair
    from typing_extensions import Buffer

    from proxystore_local import RWLock

    # Read by mypy and pyright, not run: what users write has no error, and
    # what is an error is ignored, where a checker says if there is none.
    class Counting(LocalConnector):
        puts = 0

        def put(self, obj: Buffer) -> LocalKey:
            self.puts += 1
            return super().put(obj)

    class Tagged(LocalKey):
        tag = ''

    local = LocalConnector()
    connector: Connector[LocalKey] = local
    deferrable: DeferrableConnector[LocalKey] = local
    store: Store[LocalConnector] = Store('typed', LocalConnector())
    size: int = len(store.connector)
    proxy: Proxy[str] = store.proxy('spam')
    config: StoreConfig = store.config()
    found: Store[LocalConnector] = Store.from_config(config)
    kind = ConnectorConfig(kind='', options=local.config())
    multi = MultiConnector({'here': (local, Policy())})
    both: Store[MultiConnector] = Store('both', multi)

    counting: Store[Counting] = Store('counting', Counting.from_config({}))
    with Counting() as opened:
        puts: int = opened.puts

    lock: RWLock = RWLockFair()
    store_dict: dict[LocalKey, bytes] = {}
    LocalConnector(store_dict, include_data_in_config=True, lock=lock)
    LocalConnector(lock=None, store_id='host/1/a')

    key: LocalKey = local.put(b'spam')
    keys: list[LocalKey] = local.put_batch([b'spam', bytearray(b'eggs')])
    text: str = key.id
    local.set(local.new_key(), memoryview(b'ham'))
    local.set(Tagged('a'), b'')
    value: bytes | None = local.get(('a', 1))
    values: list[bytes | None] = local.get_batch(keys)
    exists: bool = local.exists(key)
    local.evict(key)
    options: dict[str, Any] = local.config()

    local.put('text')  # type: ignore[arg-type]
    local.get('text')  # type: ignore[arg-type]
    LocalConnector({}, True)  # type: ignore[call-arg]


@pytest.mark.parametrize('protocol', ['Connector', 'DeferrableConnector'])
def test_isinstance_of_the_protocols(protocol: str) -> None:
    protocols = pytest.importorskip('proxystore.connectors.protocols')
    assert isinstance(LocalConnector(), getattr(protocols, protocol))


def test_the_type_can_be_imported_by_its_path() -> None:
    imports = pytest.importorskip('proxystore.utils.imports')
    path = imports.get_object_path(LocalConnector)
    assert imports.import_from_path(path) is LocalConnector
