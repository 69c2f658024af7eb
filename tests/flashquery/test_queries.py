"""The registry of one session's questions, against a list."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flashquery.queries import FlashQuery, Registry
from streams.errors import Conflict, NotFound

LIMIT = 3
TEXTS = ["a?", "b?", "c?", "d?", "A?"]


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(LIMIT)
        self.model: list[FlashQuery] = []
        self.last = 0

    @rule(text=st.sampled_from(TEXTS))
    def add(self, text: str) -> None:
        if any(query.text == text for query in self.model):
            with pytest.raises(Conflict) as refused:
                self.registry.add(text, (1,), 8)
            assert refused.value.code == "flash_query_exists"
        elif len(self.model) == LIMIT:
            with pytest.raises(Conflict) as refused:
                self.registry.add(text, (1,), 8)
            assert refused.value.code == "flash_query_limit"
        else:
            query = self.registry.add(text, (1,), 8)
            # A number is never used again: a late answer to a removed query can't be taken for another's.
            self.last += 1
            assert query.id == self.last
            self.model.append(query)

    @rule(query_id=st.integers(-1, 12))
    def remove(self, query_id: int) -> None:
        if all(query.id != query_id for query in self.model):
            with pytest.raises(NotFound):
                self.registry.remove(query_id)
        else:
            self.registry.remove(query_id)
            self.model = [query for query in self.model if query.id != query_id]

    @invariant()
    def it_is_the_model(self) -> None:
        assert list(self.registry) == self.model
        assert len(self.registry) == len(self.model)
        for text in TEXTS:
            assert self.registry.match(text) == next((query for query in self.model if query.text == text), None)
        for query in self.model:
            assert query in self.registry
            assert self.registry.get(query.id) is query


TestRegistry = RegistryMachine.TestCase


def test_queries_may_be_removed_while_they_are_gone_through() -> None:
    registry = Registry(9)
    for text in TEXTS:
        registry.add(text, (1,), 8)
    for query in registry:
        registry.remove(query.id)
    assert list(registry) == []
