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
    @initialize(
        capacity=st.integers(0, 1200),
        reserve=st.integers(0, 200),
        footprint=st.builds(
            Footprint,
            st.sampled_from([1, 16, 32]),
            st.sampled_from([(None,), (None, 3), (5, 5, None), (2,), ()]),
            st.integers(0, 2),
        ).filter(lambda footprint: footprint.blocks(1) > 0),
    )
    def start(self, capacity: int, reserve: int, footprint: Footprint) -> None:
        self.budget = Budget(capacity, reserve, footprint)
        self.footprint = footprint
        self.model: dict[str, int] = {}

    @rule(owner=OWNERS, tokens=st.integers(0, 300))
    def grant(self, owner: str, tokens: int) -> None:
        share = self.footprint.blocks(tokens) * self.footprint.block_size
        others = sum(held for name, held in self.model.items() if name != owner)
        # An owner that takes no more than before is never refused.
        if share > self.model.get(owner, 0) and others + share > self.budget.limit:
            with pytest.raises(Unavailable) as refused:
                self.budget.grant(owner, tokens)
            assert refused.value.code == "kv_cache_full"
            assert refused.value.retry_after is not None
        else:
            self.budget.grant(owner, tokens)
            self.model[owner] = share
            assert tokens <= self.budget.of(owner) < tokens + self.footprint.block_size

    @rule(owner=OWNERS)
    def release(self, owner: str) -> None:
        self.budget.release(owner)
        self.model.pop(owner, None)

    @invariant()
    def granted_is_what_owners_hold_and_never_above_the_limit(self) -> None:
        assert self.budget.granted == sum(self.model.values()) <= self.budget.limit

    @invariant()
    def the_longest_stream_is_the_longest_that_fits_alone(self) -> None:
        longest = self.budget.longest
        assert self.budget.share(longest) <= self.budget.limit
        assert longest >= 2**62 or self.budget.share(longest + 1) > self.budget.limit

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
