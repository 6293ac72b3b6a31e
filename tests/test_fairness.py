"""Nobody waits for ever: readers that never pause, writers that never do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from proxystore_local import LocalConnector
from tests.checks import A
from tests.harness import PATIENCE
from tests.harness import SteppingDict


@pytest.mark.timeout(120)
@pytest.mark.parametrize('stepping', [True, False])
@pytest.mark.parametrize(
    ('many', 'one'),
    [('get', 'set'), ('set', 'get'), ('set', 'set')],
)
def test_one_thread_is_reached_among_many_that_never_pause(
    many: str,
    one: str,
    stepping: bool,
) -> None:
    # On the stepping dict the many overlap all the time.
    store = SteppingDict(hook=lambda: time.sleep(0)) if stepping else {}
    connector = LocalConnector(store)
    operations: dict[str, Callable[[], object]] = {
        'get': lambda: connector.get(A),
        'set': lambda: connector.set(A, b''),
    }
    stop = threading.Event()
    start = threading.Barrier(5)

    def never_pause() -> None:
        start.wait(PATIENCE)
        while not stop.is_set():
            operations[many]()

    threads = [threading.Thread(target=never_pause) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait(PATIENCE)
    for _ in range(50):
        operations[one]()
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
