"""Programs in processes of their own, and forks."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.locks import PATIENCE

ROOT = Path(__file__).parent.parent.parent
FREE_THREADED = not getattr(sys, '_is_gil_enabled', lambda: True)()

needs_fork = pytest.mark.skipif(
    not hasattr(os, 'fork'),
    reason='there is no fork',
)


def run_apart(
    *arguments: str,
    timeout: float = 3 * PATIENCE,
    **environment: str,
) -> tuple[int, str]:
    """Run Python in a process of its own; gives exit code and output."""
    variables = {**os.environ, **environment}
    # Which would measure the process, and each that it forks by the hundred.
    variables.pop('COVERAGE_PROCESS_CONFIG', None)
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    return ended.returncode, ended.stdout


def fork_inside(
    run: Callable[[Callable[[], object]], object],
    work: Callable[[], object],
) -> int:
    """Fork in the middle of `run`, with which both sides go on.

    The child does the work when it was forked, and again when `run` has
    returned. Gives its status, which is not 0 if it failed or hung.
    """
    pid = -1

    def fork() -> None:
        nonlocal pid
        pid = os.fork()
        if pid == 0:
            # A child that hangs ends with this signal, and says where.
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, 2, chain=True)
            signal.alarm(PATIENCE)
            work()

    try:
        run(fork)
        if pid == 0:
            work()
            os._exit(0)
    except BaseException:
        if pid != 0:
            raise
        traceback.print_exc()
    finally:
        if pid == 0:
            os._exit(1)
    assert pid > 0
    # The signal that it gave itself may not be enough.
    killer = threading.Timer(PATIENCE * 1.5, os.kill, (pid, signal.SIGKILL))
    killer.start()
    try:
        return os.waitpid(pid, 0)[1]
    finally:
        killer.cancel()
