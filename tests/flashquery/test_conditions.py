"""Conditions over statistics, against Python's own idea of them."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashquery.conditions import LONGEST, Condition, Values

NUMBERS = st.sampled_from(["0", "1", "2.5", ".5", "3.", "1e1", "2E-1", "100"])
NAMES = st.sampled_from(["count", "change_pct", "alerts.fever", "a.b.c"])
TEXT_NAMES = st.sampled_from(["sensor", "current.bp"])
TEXTS = st.sampled_from(['"a"', "'a'", '"120/80"', '""', "'and'"])

operands = st.recursive(
    NUMBERS | NAMES,
    lambda inner: inner.map("-{}".format) | inner.map("abs({})".format) | inner.map("({})".format),
    max_leaves=3,
)
comparisons = st.builds(
    "{}{}{}".format, operands, st.sampled_from([" < ", "<=", " > ", ">= ", "==", " !="]), operands
) | st.builds("{} {} {}".format, TEXT_NAMES, st.sampled_from(["==", "!="]), TEXTS | TEXT_NAMES)
# Put together without parentheses as well: whatever comes of it is a condition, and precedence decides which.
conditions = st.recursive(
    comparisons,
    lambda inner: (
        st.builds("{} {} {}".format, inner, st.sampled_from(["and", "or"]), inner)
        | inner.map("not {}".format)
        | inner.map("({})".format)
    ),
    max_leaves=6,
)
FIGURES = st.integers(-3, 3) | st.floats(-100, 100)
statistics = st.fixed_dictionaries(
    {"count": FIGURES, "change_pct": FIGURES, "alerts.fever": FIGURES, "a.b.c": FIGURES}
    | {"sensor": st.sampled_from("ab"), "current.bp": st.sampled_from(["120/80", "a"])}
)


def python(condition: str, values: Values) -> Any:
    """What Python makes of it."""
    names = {
        "alerts": SimpleNamespace(fever=values["alerts.fever"]),
        "a": SimpleNamespace(b=SimpleNamespace(c=values["a.b.c"])),
        "current": SimpleNamespace(bp=values["current.bp"]),
    }
    return eval(condition, {"__builtins__": {"abs": abs}}, {**values, **names})


@given(text=conditions, values=statistics)
def test_a_condition_holds_where_python_says_so(text: str, values: Values) -> None:
    condition = Condition.parse(text)
    assert condition.text == text
    assert condition.holds(values) is python(text, values)


@given(text=conditions, values=statistics, data=st.data())
def test_a_name_that_the_statistics_lack_makes_it_false(text: str, values: Values, data: st.DataObject) -> None:
    condition = Condition.parse(text)
    lacking = data.draw(st.sets(st.sampled_from(sorted(values))))
    known = {name: value for name, value in values.items() if name not in lacking}
    assert condition.holds(known) is (bool(python(text, values)) and not condition.names & lacking)


@pytest.mark.parametrize("text", ["sensor < 1", "1 >= sensor", "sensor < 'b'", "-sensor < 1", "abs(sensor) == 1"])
def test_a_text_where_a_number_is_needed_makes_it_false_however_it_is_combined(text: str) -> None:
    for whole in (text, f"not {text}", f"count == 1 or {text}", f"{text} or count == 1", f"not ({text} and count > 1)"):
        assert not Condition.parse(whole).holds({"sensor": "a", "count": 1})


def test_texts_and_numbers_are_different_things() -> None:
    assert Condition.parse("sensor != 1 and not sensor == 1").holds({"sensor": "1"})


@given(st.text(max_size=40) | st.text("ab.<>=!()'\"-1 andornotabs", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert Condition.parse(text).holds({}) in (True, False)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("", 1),
        ("count", 6),
        ("count >", 8),
        ("> 1", 1),
        ("count = 1", 7),
        ("count > 1 and", 14),
        ("count > 1 2", 11),
        ("1 < count < 3", 11),
        ("(count > 1", 11),
        ("count > 1)", 10),
        ("(count > 1) > 1", 13),
        ("not count", 10),
        ("count and count > 1", 7),
        ("-(count > 1) == 1", 14),
        ("abs count > 1", 5),
        ("abs(count, 2) > 1", 10),
        ("count + 1 > 2", 7),
        ("count.__class__() == 1", 16),
        ("count[0] > 1", 6),
        ("f'{count}' == 'a'", 2),
        ("'a\\n' == sensor", 1),
        ("lambda: 1", 7),
        ("count > 1e999", 9),
        ("zähler > 1", 2),
        ("count >\u00a01", 8),
        ("and > 1", 1),
        ("count; 1", 6),
    ],
)
def test_anything_else_is_refused_where_it_begins(text: str, at: int) -> None:
    with pytest.raises(ValueError, match=rf"^at character {at}: .*; a condition compares"):
        Condition.parse(text)


def test_length_and_depth_are_bounded() -> None:
    fits = "count > 1".ljust(LONGEST)
    assert Condition.parse(fits).holds({"count": 2})
    with pytest.raises(ValueError, match="at most"):
        Condition.parse(fits + " ")
    for deep in ("(" * 400, "not " * 120 + "count > 1", "-" * 400 + "1 > 0", "abs(" * 120):
        with pytest.raises(ValueError, match="too deeply"):
            Condition.parse(deep)
    assert Condition.parse("(" * 20 + "count > 1" + ")" * 20).holds({"count": 2})
