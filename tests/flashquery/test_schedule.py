"""When a query is due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashquery.conditions import Condition, Values
from flashquery.queries import FlashQuery
from flashquery.schedule import Last, due_at
from streams.tally import Over


def query(
    every: int | None = None, min_interval: float | None = None, when: str | None = None, over: Over | None = None
) -> FlashQuery:
    return FlashQuery(
        1,
        "trend?",
        (1,),
        8,
        every=every,
        min_interval=min_interval,
        when=None if when is None else Condition.parse(when),
        with_stats=over,
    )


def nothing(over: Over) -> Values:
    raise AssertionError("the statistics do not decide here")


@given(every=st.none() | st.integers(1, 9), interval=st.none() | st.floats(0.1, 100), now=st.floats(0, 1e6))
def test_the_first_evaluation_waits_for_nothing(every: int | None, interval: float | None, now: float) -> None:
    assert due_at(query(every, interval), None, 1, now, nothing) == now


@pytest.mark.parametrize(("version", "due"), [(5, False), (6, False), (7, False), (8, True), (11, True)])
def test_every_counts_versions_since_the_last_evaluation(version: int, due: bool) -> None:
    assert due_at(query(every=3), Last(5, 0.0), version, 1.0, nothing) == (1.0 if due else None)


def test_without_options_every_version_is_due_and_none_twice() -> None:
    assert due_at(query(), Last(5, 0.0), 5, 1.0, nothing) is None
    assert due_at(query(), Last(5, 0.0), 6, 1.0, nothing) == 1.0


@pytest.mark.parametrize(("now", "at"), [(10.0, 12.0), (11.5, 12.0), (12.0, 12.0), (30.0, 30.0)])
def test_an_interval_puts_off_and_forgets_nothing(now: float, at: float) -> None:
    assert due_at(query(min_interval=2.0), Last(5, 10.0), 6, now, nothing) == at
    assert due_at(query(min_interval=2.0), Last(5, 10.0), 5, now, nothing) is None


@pytest.mark.parametrize(("over", "asked"), [(None, "window"), ("window", "window"), ("stream", "stream")])
def test_a_condition_is_of_the_statistics_the_query_names(over: Over | None, asked: Over) -> None:
    def statistics(named: Over) -> Values:
        assert named == asked
        return {"count": 3}

    for last in (None, Last(4, 0.0)):
        assert due_at(query(when="count >= 3", over=over), last, 5, 1.0, statistics) == 1.0
        assert due_at(query(when="count > 3", over=over), last, 5, 1.0, statistics) is None


STEPS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.5, 1.0, 2.5])), max_size=60)


@given(every=st.integers(1, 4), interval=st.sampled_from([0.5, 2.0, 5.0]), steps=STEPS)
def test_evaluations_keep_their_distance_and_come_as_soon_as_they_may(
    every: int, interval: float, steps: list[tuple[bool, float]]
) -> None:
    asked = query(every, interval, "count != 3")
    now, version, done = 100.0, 0, [Last(0, 0.0)]
    for arrives, passes in steps:
        version, now = version + arrives, now + passes
        at = due_at(asked, done[-1], version, now, lambda _, version=version: {"count": version % 5})
        fine = version - done[-1].version >= every and version % 5 != 3
        if at == now:
            assert fine
            assert now - done[-1].at >= interval
            done.append(Last(version, now))
        elif at is not None:
            assert at == done[-1].at + interval > now
        else:
            assert not fine
