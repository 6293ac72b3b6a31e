"""Hypothesis drives a connector and a model dict side by side."""

from __future__ import annotations

from collections import Counter
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import multiple
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from hypothesis.stateful import run_state_machine_as_test

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.support.locks import LOCKS
from tests.support.operations import Model
from tests.support.operations import Operation
from tests.support.operations import OPERATIONS

keys: Bundle[LocalKey] = Bundle('keys')
any_key = keys | st.text(max_size=3).map(LocalKey)
value: st.SearchStrategy[Any] = st.builds(
    lambda kind, content: kind(content),
    st.sampled_from([bytes, bytearray, memoryview]),
    st.binary(max_size=20),
)
# What the operations take.
ARGUMENTS: dict[str, st.SearchStrategy[Any]] = {
    'key': any_key,
    'keys': st.lists(any_key, max_size=8),
    'value': value,
    'values': st.lists(value, max_size=5),
}
# How often each operation was done, and in how many sequences.
COUNTS: Counter[str] = Counter()


class ConnectorMachine(RuleBasedStateMachine):
    """Two connectors on one dict, and a model of it.

    Only the first includes the data in its configuration.
    """

    keys = keys

    @initialize(lock=st.sampled_from([*LOCKS]))
    def begin(self, lock: str) -> None:
        COUNTS['sequences'] += 1
        self.model: Model = {}
        store: Model = {}
        self.connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=LOCKS[lock](),
        )
        self.second = LocalConnector(store)

    @rule(target=keys, obj=st.none() | value)
    def new_key(self, obj: Any) -> LocalKey:
        return self.connector.new_key(obj)

    @rule()
    def close(self) -> None:
        self.connector.close()

    @rule()
    def continue_on_a_snapshot(self) -> None:
        config = self.connector.config()
        rebuilt = LocalConnector(**config)
        # What happens to the old one from now on does not reach the new.
        self.connector.put(b'left behind')
        self.connector = rebuilt
        self.second = LocalConnector(config['store_dict'])

    @rule()
    def rebuild_the_second(self) -> None:
        config = self.second.config()
        self.second = LocalConnector.from_config(config)
        assert self.second.config() == config

    @invariant()
    def contents_are_the_models(self) -> None:
        batch = [*self.model]
        for connector in (self.connector, self.second):
            assert len(connector) == len(self.model)
            found = connector.get_batch(batch)
            assert found == [*self.model.values()]
            assert {*map(type, found)} <= {bytes}
        assert self.connector.config()['store_dict'] == self.model


def rule_of(operation: Operation) -> Any:
    """Make the rule that does an operation, and gives the new keys."""

    def run(self: Any, second: bool, arguments: Any) -> Any:
        COUNTS[operation.name] += 1
        connector = self.connector
        if second and operation.name != 'config':
            connector = self.second
        known = {*self.model}
        result = getattr(connector, operation.name)(*arguments)
        assert result == operation.model(self.model, result, *arguments)
        return multiple(*[key for key in self.model if key not in known])

    run.__name__ = operation.name
    return rule(
        target=keys,
        second=st.booleans(),
        arguments=st.tuples(*[ARGUMENTS[it] for it in operation.takes]),
    )(run)


for operation in OPERATIONS.values():
    setattr(ConnectorMachine, f'do_{operation.name}', rule_of(operation))


def test_connector_machine() -> None:
    COUNTS.clear()
    run_state_machine_as_test(ConnectorMachine)
    print(', '.join(f'{count} {name}' for name, count in COUNTS.items()))
