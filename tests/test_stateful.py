"""Hypothesis drives a connector and a model dict side by side."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import Bundle
from hypothesis.stateful import consumes
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import multiple
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine

from proxystore_local import LocalConnector
from proxystore_local import LocalKey
from tests.harness import LOCKS

values = st.binary(max_size=20)
kinds: st.SearchStrategy[Any] = st.sampled_from(
    [bytes, bytearray, memoryview, lambda value: memoryview(bytearray(value))],
)
buffers: st.SearchStrategy[Any] = st.builds(
    lambda kind, value: kind(value),
    kinds,
    values,
)
refused = st.one_of(
    st.text(max_size=3),
    st.integers(),
    st.none(),
    st.lists(st.integers(0, 255), max_size=3),
)
foreign_keys = st.text(max_size=3).map(LocalKey)


class ConnectorMachine(RuleBasedStateMachine):
    """A connector, a second one on the same dict, and a model of them.

    The model maps each key to the object that was stored, and remembers
    whether the same object must come back.
    """

    keys: Bundle[LocalKey] = Bundle('keys')
    evicted: Bundle[LocalKey] = Bundle('evicted')

    @initialize(lock=st.sampled_from([*LOCKS]))
    def start(self, lock: str) -> None:
        self.model: dict[LocalKey, bytes] = {}
        self.same_object: set[LocalKey] = set()
        store: dict[LocalKey, bytes] = {}
        self.connector = LocalConnector(
            store,
            include_data_in_config=True,
            lock=LOCKS[lock](),
        )
        self.second = LocalConnector(store)
        self.minted: set[LocalKey] = set()

    def pick(self, second: bool) -> LocalConnector:
        return self.second if second else self.connector

    def stored(self, key: LocalKey, obj: Any) -> None:
        self.same_object.discard(key)
        if isinstance(obj, bytes):
            self.same_object.add(key)
            self.model[key] = obj
        else:
            self.model[key] = bytes(obj)
            # Whatever its owner does to a buffer now reaches no reader.
            view = memoryview(obj)
            if not view.readonly:
                view[:] = b'\xff' * len(view)

    def mint(self, key: LocalKey) -> LocalKey:
        assert isinstance(key, LocalKey)
        assert key not in self.minted
        assert key not in self.model
        self.minted.add(key)
        return key

    @rule(target=keys, obj=buffers, second=st.booleans())
    def put(self, obj: Any, second: bool) -> LocalKey:
        key = self.mint(self.pick(second).put(obj))
        self.stored(key, obj)
        return key

    @rule(target=keys, objs=st.lists(buffers, max_size=5), lazy=st.booleans())
    def put_batch(self, objs: list[Any], lazy: bool) -> Any:
        keys = self.connector.put_batch(iter(objs) if lazy else objs)
        assert len(keys) == len(objs)
        for key, obj in zip(keys, objs):
            self.stored(self.mint(key), obj)
        return multiple(*keys)

    @rule(target=keys, obj=st.none() | buffers, second=st.booleans())
    def new_key(self, obj: Any, second: bool) -> LocalKey:
        return self.mint(self.pick(second).new_key(obj))

    @rule(
        target=keys,
        key=st.one_of(keys, evicted, foreign_keys),
        obj=buffers,
        second=st.booleans(),
    )
    def set(self, key: LocalKey, obj: Any, second: bool) -> LocalKey:
        self.pick(second).set(key, obj)
        self.stored(key, obj)
        return key

    @rule(target=evicted, key=consumes(keys), second=st.booleans())
    def evict(self, key: LocalKey, second: bool) -> LocalKey:
        self.pick(second).evict(key)
        self.model.pop(key, None)
        return key

    @rule(key=st.one_of(evicted, foreign_keys), second=st.booleans())
    def evict_once_more(self, key: LocalKey, second: bool) -> None:
        self.pick(second).evict(key)
        self.model.pop(key, None)

    @rule(key=st.one_of(keys, evicted, foreign_keys), second=st.booleans())
    def read(self, key: LocalKey, second: bool) -> None:
        connector = self.pick(second)
        assert connector.get(key) == self.model.get(key)
        assert connector.exists(key) is (key in self.model)

    @rule(
        batch=st.lists(st.one_of(keys, evicted, foreign_keys), max_size=8),
        lazy=st.booleans(),
    )
    def get_batch(self, batch: list[LocalKey], lazy: bool) -> None:
        found = self.connector.get_batch(iter(batch) if lazy else batch)
        assert found == [self.model.get(key) for key in batch]

    @rule(
        objs=st.lists(buffers, max_size=3),
        bad=refused,
        key=st.one_of(keys, foreign_keys),
    )
    def refuse(self, objs: list[Any], bad: Any, key: LocalKey) -> None:
        for call in (
            lambda: self.connector.put(bad),
            lambda: self.connector.set(key, bad),
            lambda: self.connector.put_batch([*objs, bad]),
        ):
            try:
                call()
            except TypeError:
                continue
            raise AssertionError(f'{bad!r} was taken for bytes')

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

    @invariant()
    def contents_are_the_models(self) -> None:
        for connector in (self.connector, self.second):
            assert len(connector) == len(self.model)
        assert self.connector.config()['store_dict'] == self.model
        assert 'store_dict' not in self.second.config()

    @invariant()
    def bytes_are_the_same_objects(self) -> None:
        batch = list(self.model)
        for key, found in zip(batch, self.connector.get_batch(batch)):
            assert type(found) is bytes
            if key in self.same_object:
                assert found is self.model[key]
                assert self.second.get(key) is found


TestConnectorMachine = ConnectorMachine.TestCase
