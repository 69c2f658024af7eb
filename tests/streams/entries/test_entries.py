"""What holds for every type: hostile entries are refused by field, and a line is one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.entries import BUILTIN, EntryType
from streams.errors import InvalidInput
from tests.streams.entries.kit import attempt

SAMPLES: dict[str, dict[str, Any]] = {
    "ohlcv": {"o": 185.50, "h": 186.20, "l": 185.10, "c": 185.80, "v": 12500, "sym": "ACME"},
    "iot": {"sid": "temp-01", "val": 72.5, "lo": 60.0, "hi": 85.0},
    "spatial": {"x": 1, "y": 2, "z": 3, "spd": 4, "hdg": 5},
    "event": {"src": "fw-01", "sev": 3, "cat": "login", "cnt": 5},
    "vitals": {"hr": 72, "bp_s": 120, "bp_d": 80, "spo2": 98.5, "temp": 36.8},
}
CASES = [pytest.param(BUILTIN[name], SAMPLES[name], id=name) for name in BUILTIN]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=200) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_every_required_field_is_missed_by_name(kind: EntryType, sample: dict[str, Any]) -> None:
    for field in sample.keys() - {"sym"}:
        with pytest.raises(InvalidInput, match=r"Field required") as refused:
            kind.parse({name: value for name, value in sample.items() if name != field}, "data.3")
        assert refused.value.param == f"data.3.{field}"


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_a_field_of_another_kind_is_refused_by_name(kind: EntryType, sample: dict[str, Any]) -> None:
    for field, value in sample.items():
        wrong = [None, True, [], {}, float("nan"), float("inf"), 10**400, b"a"]
        wrong += ["", "a\nb", "a\u2028b", "a\x00", "\ud800", "a" * 129, 1] if isinstance(value, str) else ["1", "NaN"]
        for other in wrong:
            if (field, other) == ("sym", None):
                continue
            with pytest.raises(InvalidInput) as refused:
                kind.parse(sample | {field: other}, "data.3")
            assert refused.value.param == f"data.3.{field}"


@pytest.mark.parametrize(("kind", "sample"), CASES)
@pytest.mark.parametrize("timestamp", [True, "1", 1.5, 2**63, -(2**63) - 1])
def test_a_timestamp_is_an_integer_of_64_bits(kind: EntryType, sample: dict[str, Any], timestamp: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        kind.parse(sample | {"timestamp": timestamp}, "data.3")
    assert refused.value.param == "data.3.timestamp"


@pytest.mark.parametrize(("kind", "sample"), CASES)
def test_a_field_that_there_is_not_is_refused_by_name(kind: EntryType, sample: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=f"is no field of {kind.name}; there are") as refused:
        kind.parse(sample | {"ts": 1}, "data.3")
    assert refused.value.param == "data.3.ts"


@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_whatever_comes_in_is_one_bounded_line_or_refused(name: str, data: st.DataObject) -> None:
    kind, sample = BUILTIN[name], SAMPLES[name]
    changes = data.draw(st.dictionaries(st.sampled_from([*sample, "timestamp"]) | st.text(), ANYTHING, max_size=3))
    entry = data.draw(st.sampled_from([ANYTHING, st.just(sample | changes)]).flatmap(lambda either: either))
    record = attempt(kind.parse, entry, "data.0")
    if isinstance(record, InvalidInput):
        assert str(record.param).startswith("data.0")
        return
    line = kind.line(record)
    assert line.isprintable()
    assert len(line) <= 700
    statistics = kind.statistics(windowed=True)
    statistics.add(record)
    statistics.report()


def test_only_a_window_forgets() -> None:
    for windowed in (True, False):
        with pytest.raises(ValueError, match="only windowed"):
            BUILTIN["iot"].statistics(windowed).drop()
