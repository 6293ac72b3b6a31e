"""What tests outside the folders import; goes when they have moved."""

from __future__ import annotations

from tests.support.locks import LOCKS
from tests.support.locks import PATIENCE
from tests.support.locks import ReportingLock
from tests.support.processes import load
from tests.support.processes import without

__all__ = ['LOCKS', 'PATIENCE', 'ReportingLock', 'load', 'without']
