"""Admission to the KV cache."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.budget import Budget
from streams.errors import Unavailable
from streams.footprint import Footprint

OWNERS = st.sampled_from("abcd")


class BudgetMachine(RuleBasedStateMachine):
    @initialize(capacity=st.integers(0, 400), reserve=st.integers(0, 200), block=st.sampled_from([1, 16, 32]))
    def start(self, capacity: int, reserve: int, block: int) -> None:
        self.budget = Budget(capacity, reserve, Footprint(block))
        self.block = block
        self.model: dict[str, int] = {}

    @rule(owner=OWNERS, tokens=st.integers(0, 300))
    def grant(self, owner: str, tokens: int) -> None:
        blocks = -(-tokens // self.block) * self.block
        others = sum(held for name, held in self.model.items() if name != owner)
        # An owner that shrinks is never refused.
        if blocks > self.model.get(owner, 0) and others + blocks > self.budget.limit:
            with pytest.raises(Unavailable) as refused:
                self.budget.grant(owner, tokens)
            assert refused.value.code == "kv_cache_full"
            assert refused.value.retry_after is not None
        else:
            self.budget.grant(owner, tokens)
            self.model[owner] = blocks

    @rule(owner=OWNERS)
    def release(self, owner: str) -> None:
        self.budget.release(owner)
        self.model.pop(owner, None)

    @invariant()
    def granted_is_what_owners_hold_and_never_above_the_limit(self) -> None:
        assert self.budget.granted == sum(self.model.values()) <= self.budget.limit

    def teardown(self) -> None:
        for owner in "abcd":
            self.budget.release(owner)
        assert self.budget.granted == 0


TestBudget = BudgetMachine.TestCase


@given(st.lists(st.tuples(OWNERS, st.integers(0, 500)), max_size=20))
def test_releasing_everything_makes_room_for_the_largest_stream(grants: list[tuple[str, int]]) -> None:
    budget = Budget(capacity=512, reserve=128, footprint=Footprint(32))
    for owner, tokens in grants:
        with contextlib.suppress(Unavailable):
            budget.grant(owner, tokens)
    for owner, _ in grants:
        budget.release(owner)
    budget.grant("whole", 384)
    assert budget.granted == budget.limit


def test_a_reserve_larger_than_the_pool_grants_nothing() -> None:
    budget = Budget(capacity=100, reserve=200, footprint=Footprint(16))
    budget.grant("a", 0)
    with pytest.raises(Unavailable):
        budget.grant("a", 1)
