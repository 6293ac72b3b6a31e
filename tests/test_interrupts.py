"""An exception at any point of any operation does no harm, and surfaces."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import pytest

from proxystore_local import BigReaderLock
from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.checks import A
from tests.checks import OPERATIONS
from tests.harness import instrumented_locks
from tests.harness import PATIENCE
from tests.harness import SteppingDict


@pytest.fixture
def interrupting() -> Iterator[Callable[[BaseException], Any]]:
    """Gives a function that interrupts the main thread with an exception."""
    coming: list[BaseException] = []

    def handler(*_: object) -> None:
        raise coming.pop()

    def interrupt(error: BaseException) -> None:
        coming.append(error)
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    yield interrupt
    signal.signal(signal.SIGUSR1, before)


# The last two could be taken for what our code itself runs into.
ERRORS = [KeyboardInterrupt(), RuntimeError('from a handler'), StopIteration()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize('error', ERRORS, ids=repr)
@pytest.mark.parametrize('operation', OPERATIONS)
def test_inside_an_operation(
    interrupting: Callable[[BaseException], Any],
    operation: str,
    error: BaseException,
) -> None:
    if operation == 'get_batch' and isinstance(error, StopIteration):
        pytest.skip('the stepping dict raises it inside map(), a dict cannot')
    store = SteppingDict()
    connector = LocalConnector(store, include_data_in_config=True)
    connector.set(A, b'0')
    store.hook = lambda: interrupting(error)
    with pytest.raises(type(error)) as caught:
        OPERATIONS[operation](connector)
    assert caught.value is error
    store.hook = lambda: None
    assert_free(connector)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('error', ERRORS, ids=repr)
@pytest.mark.parametrize('operation', OPERATIONS)
@pytest.mark.parametrize('holder', ['set', 'get'])
def test_while_blocked(
    interrupting: Callable[[BaseException], Any],
    holder: str,
    operation: str,
    error: BaseException,
) -> None:
    inside, leave = threading.Event(), threading.Event()
    store = SteppingDict()

    def hook() -> None:
        if threading.current_thread() is thread:
            inside.set()
            assert leave.wait(PATIENCE)

    def about_to_block() -> None:
        if threading.current_thread() is threading.main_thread():
            interrupting(error)

    with instrumented_locks(about_to_block):
        lock = BigReaderLock()
        connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=lock,
        )
        connector.set(A, b'0')
        store.hook = hook
        thread = threading.Thread(target=OPERATIONS[holder], args=(connector,))
        thread.start()
        assert inside.wait(PATIENCE)
        if holder == 'get' and operation in ('get', 'exists'):
            # Readers do not block readers.
            OPERATIONS[operation](connector)
        elif holder == 'set' or operation in ('set', 'evict', 'put'):
            contents = dict(store.items())
            with pytest.raises(type(error)) as caught:
                OPERATIONS[operation](connector)
            assert caught.value is error
            assert dict(store.items()) == contents
        leave.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()
        store.hook = lambda: None
        assert_free(connector)


def assert_free(connector: LocalConnector) -> None:
    """Every operation works, from this thread and from another."""
    failures: list[BaseException] = []

    def use() -> None:
        try:
            connector.set(A, b'0')
            for operation in OPERATIONS.values():
                operation(connector)
            key = connector.put(b'value')
            assert connector.get(key) == b'value'
        except BaseException as error:
            failures.append(error)

    for run in (use, lambda: in_a_thread(use), use):
        run()
    assert failures == []
    assert connector.get(LocalKey('missing')) is None


def in_a_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), 'the lock was left taken'
