from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from streams.entries import BUILTIN
from streams.entries.rendering import number
from tests.streams.entries.kit import MOVES, NUMBERS, average, entries, exact, replay, runs, total

VITALS = BUILTIN["vitals"]
FIELDS = ("hr", "bp_s", "bp_d", "spo2", "temp")
MEASUREMENTS = entries(dict.fromkeys(FIELDS, NUMBERS))
HEALTHY = {"hr": 72, "bp_s": 120, "bp_d": 80, "spo2": 98.5, "temp": 36.8}


def naive(measured: list[dict[str, Any]]) -> dict[str, Any]:
    current: dict[str, Any] = {"hr": 0, "bp": "", "spo2": 0, "temp": 0, "map": 0}
    if measured:
        last = measured[-1]
        current = {
            "hr": last["hr"],
            "bp": f"{number(float(last['bp_s']))}/{number(float(last['bp_d']))}",
            "spo2": last["spo2"],
            "temp": last["temp"],
            "map": exact((Fraction(last["bp_s"]) + 2 * Fraction(last["bp_d"])) / 3),
        }
    pressures = [*(m["bp_s"] for m in measured), *(m["bp_d"] for m in measured), *(m["bp_d"] for m in measured)]
    return {
        "count": len(measured),
        "current": current,
        "avg_heart_rate": average([m["hr"] for m in measured]),
        "avg_map": exact(total(pressures) / (3 * len(measured))) if measured else 0,
        "min_spo2": min((m["spo2"] for m in measured), default=0),
        "max_temp": max((m["temp"] for m in measured), default=0),
        "alerts": {
            "tachycardia_episodes": runs([m["hr"] > 100 for m in measured]),
            "bradycardia_episodes": runs([m["hr"] < 60 for m in measured]),
            "hypoxia_episodes": runs([m["spo2"] < 90 for m in measured]),
            "fever_episodes": runs([m["temp"] >= 38 for m in measured]),
        },
    }


@given(MEASUREMENTS, MOVES)
def test_statistics_are_those_of_the_list(measured: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(VITALS, naive, measured, moves)


def test_vital_signs_are_one_short_line() -> None:
    assert VITALS.line(VITALS.parse(HEALTHY, "data.0")) == "hr 72 bp 120/80 spo2 98.5 temp 36.8"
    assert VITALS.line(VITALS.parse(HEALTHY | {"timestamp": 7}, "data.0")) == "@7 hr 72 bp 120/80 spo2 98.5 temp 36.8"


@pytest.mark.parametrize(
    ("field", "normal", "alarming", "episodes"),
    [
        ("hr", 100, 100.1, "tachycardia_episodes"),
        ("hr", 60, 59.9, "bradycardia_episodes"),
        ("spo2", 90, 89.9, "hypoxia_episodes"),
        ("temp", 37.9, 38, "fever_episodes"),
    ],
)
def test_an_episode_is_a_run_of_entries_beyond_the_threshold(
    field: str, normal: float, alarming: float, episodes: str
) -> None:
    statistics = VITALS.statistics(windowed=True)
    counts = []
    for value in (alarming, alarming, normal, alarming):
        statistics.add(VITALS.parse(HEALTHY | {field: value}, "data.0"))
        counts.append(statistics.report()["alerts"][episodes])
    for _ in range(4):
        statistics.drop()
        counts.append(statistics.report()["alerts"][episodes])
    # A run that the window cuts into is still one.
    assert counts == [1, 1, 1, 2, 2, 1, 1, 0]
