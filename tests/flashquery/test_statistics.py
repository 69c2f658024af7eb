"""Statistics as conditions and questions use them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashquery.statistics import flat, line
from streams.entries import BUILTIN

VITALS = {"hr": 72, "bp_s": 120, "bp_d": 80, "spo2": 97.5, "temp": 38.2}


def test_figures_have_dotted_names_and_what_has_no_value_is_left_out() -> None:
    report = {"count": 2, "current": {"bp": "120/80", "at": {"x": 0.5}}, "min": None, "list": [1], "empty": {}}
    assert flat(report) == {"count": 2, "current.bp": "120/80", "current.at.x": 0.5}


def test_the_line_of_a_builtin_type() -> None:
    statistics = BUILTIN["vitals"].statistics(False)
    statistics.add(BUILTIN["vitals"].parse(VITALS, "data"))
    assert line(flat(statistics.report()), "window") == (
        'Statistics of the latest entries: count 1, current.hr 72, current.bp "120/80", current.spo2 97.5, '
        "current.temp 38.2, current.map 93.3333, avg_heart_rate 72, avg_map 93.3333, min_spo2 97.5, max_temp 38.2, "
        "alerts.tachycardia_episodes 0, alerts.bradycardia_episodes 0, alerts.hypoxia_episodes 0, "
        "alerts.fever_episodes 1\n"
    )


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_figure_of_a_builtin_type_has_a_name_from_the_beginning(name: str) -> None:
    values = flat(BUILTIN[name].statistics(False).report())
    assert values["count"] == 0
    assert line(values, "stream").startswith("Statistics of the whole stream: count 0, ")


SCALARS = st.integers() | st.floats() | st.text(max_size=200)


@given(st.dictionaries(st.text(max_size=200), SCALARS, max_size=60))
def test_whatever_producers_say_it_is_one_line_and_not_too_long(values: dict[str, int | float | str]) -> None:
    shown = line(values, "window")
    assert shown.endswith("\n")
    assert len(shown.splitlines()) == 1
    assert len(shown) < 1200
