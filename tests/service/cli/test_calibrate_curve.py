"""The statistics of calibration."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.cli.calibrate.curve import THRESHOLDS, Observation, Share, choose, curve, needed, normal, turns

observations = st.lists(
    st.builds(
        Observation,
        fast=st.none() | st.sampled_from(["up", "down"]),
        gap=st.floats(0, 12),
        full=st.sampled_from(["up", "down", "Up.", "I do not know"]),
    ),
    max_size=60,
)
shares = st.integers(1, 2000).flatmap(lambda total: st.builds(Share, st.integers(0, total), st.just(total)))
bounds = st.floats(0.001, 0.999)


@given(asked=observations)
def test_a_higher_threshold_never_covers_more(asked: list[Observation]) -> None:
    points = curve(asked)
    assert [point.threshold for point in points] == list(THRESHOLDS)
    for lower, higher in itertools.pairwise(points):
        assert lower.coverage.count >= higher.coverage.count
        assert lower.false_accepts.count >= higher.false_accepts.count
    for point in points:
        assert 0 <= point.false_accepts.count <= point.false_accepts.total == point.coverage.count <= len(asked)


@given(asked=observations)
def test_the_lowest_threshold_takes_every_candidate(asked: list[Observation]) -> None:
    assert curve(asked)[0].coverage.count == sum(one.fast is not None for one in asked)


@given(asked=observations)
def test_order_does_not_matter(asked: list[Observation]) -> None:
    assert curve(asked) == curve(reversed(asked))


@given(share=shares)
def test_the_interval_holds_the_share(share: Share) -> None:
    low, high = share.interval
    assert share.value is not None
    assert 0 <= low <= share.value <= high <= 1
    assert high - low > 0


@given(share=shares)
def test_the_interval_is_where_the_normal_test_does_not_reject(share: Share) -> None:
    """The definition: its inner ends are the true shares that a sample like this is 1.96 deviations away from."""
    for end in share.interval:
        if 0 < end < 1:
            deviation = math.sqrt(end * (1 - end) / share.total)
            assert abs((share.value or 0) - end) == pytest.approx(1.96 * deviation, rel=1e-3)


@given(share=shares, times=st.integers(2, 10))
def test_more_of_the_same_narrows_the_interval(share: Share, times: int) -> None:
    low, high = share.interval
    narrower = Share(share.count * times, share.total * times).interval
    assert narrower[1] - narrower[0] < high - low


@given(share=shares)
def test_the_interval_mirrors(share: Share) -> None:
    low, high = share.interval
    assert Share(share.total - share.count, share.total).interval == pytest.approx((1 - high, 1 - low))


def test_nothing_says_nothing() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0, 1)
    assert choose(curve([]), 0.99) is None


def test_known_intervals() -> None:
    assert Share(0, 10).interval == pytest.approx((0, 0.2775), abs=1e-4)
    assert Share(1, 10).interval == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert Share(50, 100).interval == pytest.approx((0.4038, 0.5962), abs=1e-4)


@given(asked=observations, most=bounds)
def test_the_choice_covers_most_of_what_is_allowed(asked: list[Observation], most: float) -> None:
    points = curve(asked)
    chosen = choose(points, most)
    allowed = [point for point in points if point.coverage.count and point.false_accepts.interval[1] <= most]
    if chosen is None:
        assert not allowed
        return
    assert chosen in allowed
    for point in allowed:
        assert point.coverage.count <= chosen.coverage.count
        assert point.coverage.count < chosen.coverage.count or point.threshold <= chosen.threshold


@given(asked=observations, most=bounds, more=bounds)
def test_a_looser_bound_never_covers_less(asked: list[Observation], most: float, more: float) -> None:
    assume(most <= more)
    points = curve(asked)
    strict, loose = choose(points, most), choose(points, more)
    if strict is not None:
        assert loose is not None
        assert loose.coverage.count >= strict.coverage.count


@given(most=st.floats(0.005, 0.999))
def test_so_many_right_answers_are_needed_and_enough(most: float) -> None:
    count = needed(most)
    right = Observation("up", 9.0, "up")
    # A hair to either side, where a bound lies exactly on a whole number.
    assert choose(curve([right] * count), most * (1 + 1e-9)) is not None
    assert count == 1 or choose(curve([right] * (count - 1)), most * (1 - 1e-9)) is None


def test_five_percent_takes_seventy_three() -> None:
    assert needed(0.05) == 73


@given(asked=observations)
def test_the_turns_tell_the_whole_curve(asked: list[Observation]) -> None:
    points = curve(asked)
    told = turns(points, [2.0])
    assert 2.0 in [point.threshold for point in told]
    for point in points:
        last = [one for one in told if one.threshold <= point.threshold][-1]
        assert (last.coverage, last.false_accepts) == (point.coverage, point.false_accepts)


@pytest.mark.parametrize(
    ("one", "other"),
    [("up", "Up."), ("up", " UP\n"), ("up", '"up"'), ("up", "**up**"), ("at  rest", "At rest!"), ("größer", "GRÖSSER")],
)
def test_texts_that_are_the_same(one: str, other: str) -> None:
    assert normal(one) == normal(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("up", "down"), ("up", "upper"), ("up", "up, I think"), ("1.5", "15"), ("-5", "5"), (".5", "5"), ("5 %", "5")],
)
def test_texts_that_differ(one: str, other: str) -> None:
    assert normal(one) != normal(other)


@given(text=st.text(max_size=40))
def test_what_is_normal_stays_so(text: str) -> None:
    assert normal(normal(text)) == normal(text)
