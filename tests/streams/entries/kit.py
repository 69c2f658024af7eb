"""What the tests of entry types share: a stream replayed against figures computed anew from its list of entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from streams.entries import EntryType
from streams.errors import InvalidInput

# Few values, so that ties, runs and repetitions are common; and extreme ones, which rounding would swallow.
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1, 0.1, 0.2, 0.3, -1.5, 37.9, 38.0, 59.9, 60, 90, 100, 100.5, 359, 1e16]),
    st.floats(allow_nan=False, allow_infinity=False),
)
NAMES = st.one_of(
    st.sampled_from(["a", "b", "c"]), st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=9)
)
TIMES = st.one_of(st.none(), st.integers(0, 5), st.integers(-(2**63), 2**63 - 1))
# True: the next entry comes in; False: the oldest goes.
MOVES = st.lists(st.sampled_from([True, True, True, False]), max_size=60)


def entries(required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Streams of entries with these fields, and now and then a timestamp."""
    one = st.fixed_dictionaries(required, optional={"timestamp": TIMES, **optional})
    return st.lists(one, min_size=1, max_size=40)


def replay(
    kind: EntryType,
    naive: Callable[[list[dict[str, Any]]], dict[str, Any]],
    stream_of: Sequence[dict[str, Any]],
    moves: Sequence[bool],
) -> None:
    """Statistics over a window, and over the whole stream, must equal ``naive`` of the list after every step."""
    window, stream = kind.statistics(windowed=True), kind.statistics(windowed=False)
    inside: list[dict[str, Any]] = []
    seen: list[dict[str, Any]] = []
    coming = iter(stream_of)
    assert window.report() == stream.report() == naive([])
    for move in moves:
        if move and (entry := next(coming, None)) is not None:
            record = kind.parse(entry, "data.0")
            window.add(record)
            stream.add(record)
            inside.append(entry)
            seen.append(entry)
        elif inside:
            window.drop()
            inside.pop(0)
        assert window.report() == naive(inside)
    assert stream.report() == naive(seen)


def exact(value: Fraction | int) -> float:
    """The nearest double, as no larger than the largest."""
    largest = Fraction(1.7976931348623157e308)
    return float(max(-largest, min(largest, Fraction(value))))


def total(values: Sequence[float]) -> Fraction:
    return sum(map(Fraction, values), Fraction())


def average(values: Sequence[float]) -> float:
    return exact(total(values) / len(values)) if values else 0.0


def runs(flags: Sequence[bool]) -> int:
    """How many maximal runs of true there are."""
    return len("".join("x" if flag else " " for flag in flags).split())


def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or its refusal."""
    try:
        return call(*args)
    except InvalidInput as refusal:
        return refusal
