"""What a sequence takes of the KV cache, and how much of that may be kept free."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from streams.footprint import Footprint

BOUNDS = st.lists(st.none() | st.integers(1, 40), min_size=1, max_size=6).map(tuple)
FOOTPRINTS = st.builds(Footprint, st.sampled_from([1, 16, 32]), BOUNDS, st.integers(0, 9))
TOKENS = st.integers(0, 5000)


@given(FOOTPRINTS, TOKENS, TOKENS)
def test_a_longer_sequence_never_takes_less(footprint: Footprint, one: int, other: int) -> None:
    assert footprint.blocks(min(one, other)) <= footprint.blocks(max(one, other))


@given(FOOTPRINTS, st.integers(-1, 2000))
def test_so_many_tokens_fit_and_not_one_more(footprint: Footprint, blocks: int) -> None:
    tokens = footprint.tokens(blocks)
    assert footprint.blocks(tokens) <= max(0, blocks)
    if tokens < sys.maxsize - 1:
        assert footprint.blocks(tokens + 1) > blocks


@given(FOOTPRINTS, st.integers(0, 2000), st.integers(1, 5000))
def test_half_of_the_blocks_stays_for_streams(footprint: Footprint, blocks: int, context: int) -> None:
    reserve = footprint.reserve(blocks, context)
    assert reserve <= context
    assert footprint.blocks(reserve) <= blocks // 2


def test_each_group_takes_its_own_blocks() -> None:
    # Gemma 3's way: five groups that see the end, one that sees all.
    footprint = Footprint(32, (33,) * 5 + (None,))
    assert footprint.blocks(32) == 6
    assert footprint.blocks(32 * 100) == 5 * 33 + 100


def test_a_state_is_as_large_for_any_sequence() -> None:
    footprint = Footprint(32, (), states=3)
    assert [footprint.blocks(tokens) for tokens in (0, 1, 10**6)] == [0, 3, 3]
    assert footprint.tokens(2) == 0
