"""Hypothesis profiles, Ctrl-C, and a fixture for threads."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# A noisy machine must not fail a test, so nothing has a deadline.
settings.register_profile('default', deadline=None)
settings.register_profile('thorough', deadline=None, max_examples=1000)
settings.load_profile(os.environ.get('HYPOTHESIS_PROFILE', 'default'))

# A shell that starts the tests in the background has them ignore Ctrl-C, and
# so would each process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def tiny_switch_interval() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)
