"""Positions in the events of many sessions."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashquery.cursor import TEXT_MAX, Cursor, Id, read_id, write_id

NAMES = ("a", "b", "plant-1", "-")
START = 1_790_000_000_000
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([0, 0, 0, 1, 5])), max_size=30)


def executed(steps: list[tuple[str, int]]) -> list[tuple[str, Id]]:
    """Events as one Redis numbers them: time never falls, and numbers count within a session and millisecond."""
    ms, numbers, events = START, dict[tuple[str, int], int](), []
    for session_id, later in steps:
        ms += later
        seq = numbers[session_id, ms] = numbers.get((session_id, ms), -1) + 1
        events.append((session_id, (ms, seq)))
    return events


@given(steps=STEPS, cuts=st.lists(st.integers(0, 30), max_size=4))
@example(steps=[("a", 0), ("b", 0), ("a", 0), ("b", 1)], cuts=[1, 2, 3])
def test_wherever_the_connection_breaks_everything_is_told_once(steps: list[tuple[str, int]], cuts: list[int]) -> None:
    events = executed(steps)
    told: list[tuple[str, Id]] = []
    cursor = Cursor(START)
    for cut in [*cuts, len(events)]:
        # A new connection knows nothing but the text.
        cursor = Cursor.parse(str(cursor))
        left = [(session_id, at) for session_id, at in events if at > cursor.of(session_id)]
        for session_id, at in left[:cut]:
            told.append((session_id, at))
            cursor = cursor.moved(session_id, at)
    assert told == events


@given(steps=STEPS)
def test_sessions_may_be_told_in_any_order_within_a_millisecond(steps: list[tuple[str, int]]) -> None:
    events = executed(steps)
    merged = sorted(events, key=lambda event: (event[1], event[0]))
    cursor = Cursor(START)
    for number, (session_id, at) in enumerate(merged):
        cursor = cursor.moved(session_id, at)
        assert [one for one in merged if one[1] > cursor.of(one[0])] == merged[number + 1 :]


def test_the_text_is_short_and_readable() -> None:
    assert str(Cursor(START)) == "1790000000000"
    assert str(Cursor(START).moved("a", (START, 0)).moved("b", (START, 3))) == "1790000000000:a.0,b.3"
    assert str(Cursor(START).moved("a", (START, 0)).moved("b", (START + 1, 0))) == "1790000000001:b.0"


def test_an_event_that_is_late_moves_nothing() -> None:
    cursor = Cursor(START).moved("a", (START, 1))
    assert cursor.moved("b", (START - 1, 7)) == cursor


def test_a_text_that_would_not_fit_a_header_is_not_given() -> None:
    cursor = Cursor(START)
    for number in range(40):
        cursor = cursor.moved(f"{number:0128}", (START, 0))
    assert str(cursor) == ""
    cursor = cursor.moved("a", (START + 1, 0))
    assert str(cursor) == f"{START + 1}:a.0"
    assert len(str(cursor)) < TEXT_MAX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "1-0",
        "soon",
        "1:",
        "1:a",
        "1:a.",
        "1:a.x",
        "1:a.0,",
        "1:,a.0",
        "1:a.0,a.1",
        "1:a.00",
        "01:a.0",
        "1:a.18446744073709551616",
        "1: a.0",
        "1:a.0\n",
        "1:a b.0",
        "١",
        "9007199254740992",
        "12345678901234567890",
        "1:" + ",".join(f"{number:0128}.0" for number in range(40)),
    ],
)
def test_what_was_never_given_out_is_no_position(text: str) -> None:
    with pytest.raises(ValueError, match="must be the `id` of an event"):
        Cursor.parse(text)


@given(st.text(max_size=40) | st.from_regex(r"[0-9]{1,17}(:[a-z]\.[0-9]{1,21},?)*", fullmatch=True))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    try:
        cursor = Cursor.parse(text)
    except ValueError:
        return
    assert str(cursor) == text


@given(st.tuples(st.integers(0, 2**63), st.integers(0, 2**64 - 1)))
def test_ids_are_read_as_redis_writes_them(at: Id) -> None:
    assert read_id(write_id(at)) == read_id(write_id(at).encode()) == at
