"""Which states are kept, and which make room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.engine.recurrent.states import Digest, States


def digest(*tokens: int) -> Digest:
    return Digest().extended(tokens)


def keep(states: States, *tokens: int) -> int:
    sequence = states.take()
    assert sequence is not None
    states.keep(sequence, digest(*tokens))
    return sequence


def test_a_digest_is_of_the_tokens_however_they_came() -> None:
    assert digest(1, 2, 3).key == digest(1).extended([2]).extended([3]).key
    assert digest(1, 2).key != digest(2, 1).key
    assert digest(1, 2).key != digest(1, 2, 0).key


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=8), st.lists(st.integers(0, 2), max_size=6))
def test_the_longest_prefix_is_found(kept: list[list[int]], wanted: list[int]) -> None:
    states = States(8)
    for tokens in kept:
        keep(states, *tokens)
    prefixes = [tokens for tokens in kept if wanted[: len(tokens)] == tokens]
    sequence, read = states.longest(wanted)
    assert (sequence >= 0) == bool(prefixes)
    assert read.length == max(map(len, prefixes), default=0)
    assert read.key == digest(*wanted[: read.length]).key


def test_what_was_used_least_recently_makes_room() -> None:
    states = States(3)
    first, second, third = (keep(states, number) for number in range(3))
    assert states.longest([0])[0] == first  # used again
    assert states.take() == second
    assert states.take() == third
    assert states.longest([1])[0] == -1
    assert states.take(besides=first) is None
    assert states.take() == first
    assert states.take() is None
    states.give_back(second)
    assert states.take() == second


def test_where_holds_stand_makes_room_last() -> None:
    states = States(2)
    held = keep(states, 1)
    states.pin(digest(1))
    states.pin(digest(1))
    loose = keep(states, 2)
    assert states.take(pinned=False) == loose
    assert states.take(pinned=False) is None
    states.unpin(digest(1))
    assert states.take(pinned=False) is None
    states.unpin(digest(1))
    assert states.take(pinned=False) == held


def test_a_state_is_kept_once() -> None:
    states = States(2)
    first = keep(states, 1)
    second = keep(states, 1)
    assert states.longest([1])[0] == first
    assert states.take() == second
