"""Figures, and what they must reach."""

from __future__ import annotations

import pytest

from bench.rows import Row, at_least, at_most, compared, percentile


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1.0, 100)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


def test_a_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_the_ratio_is_the_median_of_the_rounds_ratios() -> None:
    row = compared("x", [10, 200, 30], [20, 100, 60], "ms", "y")
    assert (row.value, row.baseline, row.ratio) == (30, 60, 0.5)


def test_a_target_is_for_the_ratio_where_there_is_one() -> None:
    assert compared("x", [10], [20], "ms", "y", at_most(0.5)).met is True
    assert compared("x", [10], [20], "/s", "y", at_least(0.7)).met is False
    assert Row(measure="x", value=3.0, unit="ms", target=at_most(2)).met is False
    assert Row(measure="x", value=3.0, unit="ms").met is None
