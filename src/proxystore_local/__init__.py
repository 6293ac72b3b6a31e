"""A thread-safe, concurrent, in-process connector for ProxyStore."""

from __future__ import annotations

from proxystore_local.connector import LocalConnector
from proxystore_local.keys import LocalKey
from proxystore_local.rwlocked import RWLock

__all__ = ['LocalConnector', 'LocalKey', 'RWLock']
__version__ = '0.1.0'
