"""ProxyStore's protocols are met, at run time and for a type checker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxystore_local import LocalConnector
from proxystore_local import LocalKey

if TYPE_CHECKING:
    from proxystore.connectors.protocols import Connector
    from proxystore.connectors.protocols import DeferrableConnector
    from proxystore.store import Store

    # Read by mypy, not run: each line is an error if the protocol is not met.
    _connector: Connector[LocalKey] = LocalConnector()
    _deferrable: DeferrableConnector[LocalKey] = LocalConnector()
    _store: Store[LocalConnector] = Store('typed', LocalConnector())
    _value: bytes | None = LocalConnector().get(LocalKey('a'))
    _batch: list[bytes | None] = LocalConnector().get_batch([LocalKey('a')])


@pytest.mark.parametrize('protocol', ['Connector', 'DeferrableConnector'])
def test_isinstance_of_the_protocols(protocol: str) -> None:
    protocols = pytest.importorskip('proxystore.connectors.protocols')
    assert isinstance(LocalConnector(), getattr(protocols, protocol))


def test_the_type_can_be_imported_by_its_path() -> None:
    imports = pytest.importorskip('proxystore.utils.imports')
    path = imports.get_object_path(LocalConnector)
    assert imports.import_from_path(path) is LocalConnector
