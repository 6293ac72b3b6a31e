"""A pytest plugin for mutants: what hangs is given up soon, and for good.

    python -m pytest -p tests.impatience

A mutant that hangs must not cost a minute, nor leave a process behind, nor
take all the memory of the machine.
"""

from __future__ import annotations

import os
import resource
import sys

import pytest

from tests import harness

# Seconds. The longest test takes two if nothing is in its way. A thread that
# waits for another gives up first, which tells more, and so does a forked
# child.
PATIENCE = 8
TIMEOUT = 20
MEMORY = 8 << 30

# Before a test file takes its copy.
harness.PATIENCE = PATIENCE
resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # By a thread that ends the process: an exception that a signal handler
    # raises could be taken for one of the faults that the tests make.
    timeout = pytest.mark.timeout(TIMEOUT, method='thread')
    for item in items:
        item.add_marker(timeout, append=False)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # Python would wait for threads that hang.
    session.config.add_cleanup(lambda: end(exitstatus))


def end(exitstatus: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exitstatus)
