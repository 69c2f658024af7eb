"""What leaves through a window, against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import Conflict
from streams.ingest import Entry
from streams.timeline import Data, Eviction, Timeline, Turn
from streams.window import NO_WINDOW, Window
from tests.streams.chatting import assistant, user

HEAD = (1, 2)


def entry(size: int, at: float = 0.0) -> Entry:
    return Entry((7,) * size, size, at)


def turn(size: int, at: float = 0.0) -> Turn:
    return Turn((user("q"), assistant("a")), (8,) * size, at)


parts = st.lists(st.tuples(st.sampled_from(["entry", "entry", "entry", "turn"]), st.integers(1, 9)), max_size=14)


def built(parts: list[tuple[str, int]], frozen: int) -> Timeline:
    """A timeline of these parts, one second apart."""
    timeline = Timeline.of(HEAD, frozen=(entry(frozen),) if frozen else ())
    for at, (kind, size) in enumerate(parts):
        if kind == "entry":
            timeline.append([entry(size, at)])
        else:
            timeline = timeline.said(turn(size, at), Data((9, 9)))
    return timeline


@given(parts, st.integers(0, 10), st.integers(24, 90), st.integers(0, 12))
def test_the_newest_half_stays_and_everything_that_stays_is_as_it_was(
    parts: list[tuple[str, int]], frozen: int, tokens: int, coming: int
) -> None:
    window, timeline = Window(tokens), built(parts, frozen)
    before = list(timeline.tokens)
    eviction = window.eviction(timeline, coming, now=100.0)
    left = timeline.without(eviction)
    assert timeline.tokens == before, "the old one serves until then"
    low = left.frozen_end + (tokens - left.frozen_end) // 2
    assert len(left) <= low, "what stays is at most half of it"
    assert not coming or len(left) + coming <= tokens + window.slack, "and what comes next has room"
    entries, kept = list(timeline.data()), list(left.data())
    assert kept == entries[len(entries) - len(kept) :], "the newest, in order"
    assert (left.head, left.frozen) == (timeline.head, timeline.frozen)
    assert left.tokens[: left.frozen_end] == before[: left.frozen_end]
    said = [message for segment in timeline.segments if isinstance(segment, Turn) for message in segment.messages]
    still = [message for segment in left.segments if isinstance(segment, Turn) for message in segment.messages]
    assert [*left.forgotten, *still] == said, "turns that left are remembered"
    assert left.in_user == timeline.in_user
    if not eviction:
        assert left.tokens == before


@given(parts, st.integers(24, 90))
def test_no_more_leaves_than_has_to(parts: list[tuple[str, int]], tokens: int) -> None:
    window, timeline = Window(tokens), built(parts, 0)
    eviction = window.eviction(timeline, 0, now=100.0)
    less = None
    if eviction.entries:
        less = Eviction(eviction.segments, eviction.entries - 1)
    elif eviction.segments and isinstance(timeline.segments[eviction.segments - 1], Turn):
        less = Eviction(eviction.segments - 1)
    if less is not None:
        assert len(timeline.without(less)) > len(HEAD) + (tokens - len(HEAD)) // 2


@given(st.lists(st.floats(0, 100), max_size=12).map(sorted), st.floats(1, 60), st.floats(0, 200))
def test_a_window_in_seconds(times: list[float], seconds: float, later: float) -> None:
    window, timeline = Window(seconds=seconds), Timeline.of(HEAD)
    timeline.append([entry(3, at) for at in times])
    now = (times[-1] if times else 0.0) + later
    assert window.overdue(timeline, 0, now) == bool(times and times[0] + seconds <= now)
    left = timeline.without(window.eviction(timeline, 0, now))
    assert [entry.at for entry in left.data()] == [at for at in times if at >= now - seconds / 2]
    assert not window.overdue(left, 0, now)


def test_a_window_is_overdue_when_it_is_passed_or_the_next_entry_has_no_room() -> None:
    window, timeline = Window(64), Timeline.of(HEAD)
    timeline.append([entry(62)])
    assert not window.overdue(timeline, 4, 0.0)
    assert window.overdue(timeline, 5, 0.0), "the slack is four tokens"
    timeline.append([entry(1)])
    assert window.overdue(timeline, 0, 0.0)
    assert not NO_WINDOW.overdue(timeline, 10**6, 1e12)


def test_a_turn_larger_than_the_window_leaves_as_well() -> None:
    timeline = Timeline.of(HEAD, [turn(500), Data((9, 9), [entry(3)])])
    left = timeline.without(Window(64).eviction(timeline, 0, 0.0))
    assert left.tokens == [*HEAD, 7, 7, 7]
    assert left.forgotten == (user("q"), assistant("a"))


def test_a_conversation_still_repeats_what_was_forgotten() -> None:
    timeline = Timeline.of(HEAD, [turn(5), Data((9,), [entry(1)]), turn(6), Data((9,))])
    left = timeline.without(Eviction(1))
    history = (user("q"), assistant("a")) * 2
    assert left.kept((*history, user("new"))).messages == 4
    other = left.kept((user("other"), *history[1:], user("new")))
    assert (other.segments, other.messages) == (0, 0)
    again = left.cut(other, HEAD, (), user_next=True)
    assert again.forgotten == (), "the conversation is another"
    assert again.tokens == [*HEAD, 7]


def test_lineage_tells_growth_from_everything_else() -> None:
    timeline = Timeline.of(HEAD, [Data((), [entry(1)]), turn(4), Data((9,), [entry(1)])])
    lineage = timeline.lineage
    timeline.append([entry(2)])
    history = (user("q"), assistant("a"))
    grown = timeline.cut(timeline.kept((*history, user("x"))), HEAD, (), user_next=True).said(turn(3), Data())
    assert grown.lineage is lineage
    cut = timeline.cut(timeline.kept((user("y"),)), HEAD, (), user_next=True)
    assert cut.lineage is not lineage
    assert timeline.without(Eviction(1)).lineage is not lineage


def test_freezing_changes_no_token_and_ends_with_the_first_turn() -> None:
    timeline = Timeline.of(HEAD)
    timeline.append([entry(3), entry(4)])
    frozen = timeline.freeze()
    assert (frozen.tokens, frozen.frozen_end) == (timeline.tokens, 9)
    frozen.append([entry(60)])
    assert frozen.without(Window(64).eviction(frozen, 0, 0.0)).tokens == timeline.tokens
    with pytest.raises(Conflict, match="before the first turn"):
        frozen.said(turn(1), Data((9,))).freeze()
