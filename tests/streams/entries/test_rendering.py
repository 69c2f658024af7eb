from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from streams.entries.rendering import MAX_TEXT, number, single_line, word


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (185.50, "185.5"),
        (12500.0, "12500"),
        (12500, "12500"),
        (-0.0, "0"),
        (0.00001234, "0.00001234"),
        (1e16, "10000000000000000"),
        (1e21, "1e+21"),
        (1e-10, "1e-10"),
        (-(2**63), "-9223372036854775808"),
    ],
)
def test_numbers_are_as_short_as_they_can_be_said_exactly(value: float, text: str) -> None:
    assert number(value) == text


@example(-5.7170312105644175e-08)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_a_number_reads_back_as_the_same(value: float) -> None:
    text = number(value)
    assert type(value)(Decimal(text)) == value
    assert len(text) <= 26


@given(st.text(st.characters()))
def test_any_text_becomes_a_bounded_single_line(text: str) -> None:
    line = single_line(text)
    assert line.isprintable()
    assert len(line) == min(len(text), MAX_TEXT)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("temp-01", "temp-01"),
        ("a b", '"a b"'),
        ("@7", '"@7"'),
        ("a@b", "a@b"),
        ('"', '"\\""'),
        ("Küche", "Küche"),
        ("ö ö", '"ö ö"'),
    ],
)
def test_a_name_that_could_be_more_than_one_is_in_quotes(name: str, written: str) -> None:
    assert word(name) == written
