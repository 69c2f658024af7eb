from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.bucket import Bucket

rates = st.floats(0.01, 1000)
bursts = st.integers(1, 100)
pauses = st.lists(st.floats(0, 10), min_size=1, max_size=200)


def test_a_new_bucket_gives_its_burst_and_then_one_per_interval() -> None:
    bucket = Bucket(rate=2, burst=3, at=100)
    assert [bucket.take(100) for _ in range(3)] == [0, 0, 0]
    assert bucket.take(100) == 0.5
    assert bucket.take(100.25) == 0.25
    assert bucket.take(100.5) == 0
    assert bucket.take(100.5) == 0.5


def test_a_pause_fills_it_no_further_than_its_burst() -> None:
    bucket = Bucket(rate=1, burst=2, at=0)
    assert [bucket.take(0) for _ in range(2)] == [0, 0]
    assert not bucket.full(1)
    assert bucket.full(1000)
    assert [bool(bucket.take(1000)) for _ in range(3)] == [False, False, True]


@given(rates, bursts, pauses)
def test_never_more_than_burst_and_rate_allow(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now, given_at = Bucket(rate, burst, 0.0), 0.0, []
    for pause in pauses:
        now += pause
        if not bucket.take(now):
            given_at.append(now)
    for first, start in enumerate(given_at):
        for last, end in enumerate(given_at[first:], start=first):
            assert last - first + 1 <= burst + rate * (end - start) + 1e-6


@given(rates, bursts, pauses)
def test_who_waits_as_long_as_told_is_served(rate: float, burst: int, pauses: list[float]) -> None:
    bucket, now = Bucket(rate, burst, 0.0), 0.0
    for pause in pauses:
        now += pause / 100
        wait = bucket.take(now)
        if wait:
            assert wait <= 1 / rate + 1e-9
            now += wait + 1e-6 / rate
            assert bucket.take(now) == pytest.approx(0, abs=1e-9)
