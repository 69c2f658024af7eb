"""The registry of one session's questions and answers, against a list and a dictionary."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flashquery.answers import Answer
from flashquery.queries import FlashQuery, Look, Registry
from streams.errors import Conflict, NotFound

LIMIT = 3
TEXTS = ["a?", "b?", "c?", "d?", "A?"]


class RegistryMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry(LIMIT)
        self.model: list[FlashQuery] = []
        self.answers: dict[int, Answer] = {}
        self.last = 0
        self.version = 0
        self.before = Look(0, (), {})
        self.shown: tuple[list[FlashQuery], dict[int, Answer]] = ([], {})

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
            self.answers.pop(query_id, None)

    @rule(query_id=st.integers(1, 5), max_tokens=st.sampled_from([8, 9]))
    def change(self, query_id: int, max_tokens: int) -> None:
        for index, query in enumerate(self.model):
            if query.id == query_id:
                self.model[index] = replace(query, max_tokens=max_tokens)
                self.registry.put(self.model[index])
                if max_tokens != query.max_tokens:
                    self.answers.pop(query_id, None)

    @rule(query_id=st.integers(1, 5), max_tokens=st.sampled_from([8, 9]), value=st.sampled_from(["up", "down"]))
    def store(self, query_id: int, max_tokens: int, value: str) -> None:
        answer = Answer(value, self.version, 1.0, 0.0)
        self.registry.stored(FlashQuery(query_id, "", (1,), max_tokens), answer)
        # A late answer to a query that is gone, or another by now, is none.
        if any((query.id, query.max_tokens) == (query_id, max_tokens) for query in self.model):
            self.answers[query_id] = answer

    @rule()
    def renew(self) -> None:
        self.version += 1

    @invariant()
    def a_look_shows_what_is_so(self) -> None:
        look = self.registry.look(self.version)
        assert (look.version, list(look.queries), look.answers) == (self.version, self.model, self.answers)
        assert self.registry.look(self.version) is look
        assert (list(self.before.queries), self.before.answers) == self.shown, "one that was taken stays as it was"
        self.before, self.shown = look, (list(self.model), dict(self.answers))

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
