from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from streams.entries import BUILTIN
from tests.streams.entries.kit import MOVES, NAMES, NUMBERS, average, entries, replay

IOT = BUILTIN["iot"]
READINGS = entries({"sid": NAMES, "val": NUMBERS, "lo": NUMBERS, "hi": NUMBERS})


def naive(readings: list[dict[str, Any]]) -> dict[str, Any]:
    values = [reading["val"] for reading in readings]
    breaches = sum(reading["val"] < reading["lo"] or reading["val"] > reading["hi"] for reading in readings)
    return {
        "count": len(readings),
        "last_sensor": readings[-1]["sid"] if readings else "",
        "last_value": values[-1] if values else 0,
        "min_value": min(values, default=0),
        "max_value": max(values, default=0),
        "avg_value": average(values),
        "threshold_breaches": breaches,
        "breach_rate": breaches / len(readings) if readings else 0,
    }


@given(READINGS, MOVES)
def test_statistics_are_those_of_the_list(readings: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(IOT, naive, readings, moves)


def test_a_reading_is_one_short_line() -> None:
    reading = {"sid": "temp-01", "val": 72.5, "lo": 60.0, "hi": 85.0}
    assert IOT.line(IOT.parse(reading, "data.0")) == "temp-01 72.5 [60,85]"
    reading |= {"sid": "a 1 [2,3]", "timestamp": 7}
    assert IOT.line(IOT.parse(reading, "data.0")) == '@7 "a 1 [2,3]" 72.5 [60,85]'


@pytest.mark.parametrize(("value", "breaches"), [(59.9, 1), (60, 0), (85, 0), (85.1, 1)])
def test_the_thresholds_themselves_are_no_breach(value: float, breaches: int) -> None:
    statistics = IOT.statistics(windowed=False)
    statistics.add(IOT.parse({"sid": "a", "val": value, "lo": 60, "hi": 85}, "data.0"))
    assert statistics.report()["threshold_breaches"] == breaches
