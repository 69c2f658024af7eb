from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given

from streams.entries import BUILTIN
from tests.streams.entries.kit import MOVES, NUMBERS, average, entries, exact, replay, total

SPATIAL = BUILTIN["spatial"]
POSITIONS = entries(dict.fromkeys(("x", "y", "z", "spd", "hdg"), NUMBERS))
START = {"x": 0, "y": 0, "z": 0, "spd": 1, "hdg": 0}


def distance(before: dict[str, Any], after: dict[str, Any]) -> float:
    straight = math.dist([before[axis] for axis in "xyz"], [after[axis] for axis in "xyz"])
    return min(straight, 1.7976931348623157e308)


def turn(before: dict[str, Any], after: dict[str, Any]) -> float:
    degrees = math.remainder(after["hdg"], 360) - math.remainder(before["hdg"], 360)
    turned = min(abs(degrees), 360 - abs(degrees))
    times = before.get("timestamp"), after.get("timestamp")
    return turned if None in times or times[0] == times[1] else turned / abs(times[0] - times[1])


def naive(positions: list[dict[str, Any]]) -> dict[str, Any]:
    last = positions[-1] if positions else dict.fromkeys(("x", "y", "z", "spd", "hdg"), 0)
    return {
        "count": len(positions),
        "current_position": {axis: last[axis] for axis in "xyz"},
        "current_speed": last["spd"],
        "current_heading": last["hdg"],
        "total_distance": exact(total([distance(*pair) for pair in pairwise(positions)])),
        "max_speed": max((position["spd"] for position in positions), default=0),
        "avg_speed": average([position["spd"] for position in positions]),
        "max_turn_rate": max((turn(*pair) for pair in pairwise(positions)), default=0),
    }


@given(POSITIONS, MOVES)
def test_statistics_are_those_of_the_list(positions: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(SPATIAL, naive, positions, moves)


def test_a_position_is_one_short_line() -> None:
    position = SPATIAL.parse({"x": 12.5, "y": -3.25, "z": 0, "spd": 4.2, "hdg": 270, "timestamp": 7}, "data.0")
    assert SPATIAL.line(position) == "@7 12.5,-3.25,0 speed 4.2 heading 270"


@pytest.mark.parametrize(
    ("before", "after", "rate"),
    [
        ({"hdg": 350}, {"hdg": 10}, 20),
        ({"hdg": 10}, {"hdg": 350}, 20),
        ({"hdg": 0}, {"hdg": 540}, 180),
        ({"hdg": 0, "timestamp": 10}, {"hdg": 90, "timestamp": 13}, 30),
        ({"hdg": 0, "timestamp": 13}, {"hdg": 90, "timestamp": 10}, 30),
        ({"hdg": 0, "timestamp": 10}, {"hdg": 90, "timestamp": 10}, 90),
        ({"hdg": 0, "timestamp": 10}, {"hdg": 90}, 90),
    ],
)
def test_the_turn_rate_is_per_second_where_the_times_tell_and_the_shorter_way_round(
    before: dict[str, Any], after: dict[str, Any], rate: float
) -> None:
    statistics = SPATIAL.statistics(windowed=False)
    for position in (before, after):
        statistics.add(SPATIAL.parse(START | position, "data.0"))
    assert statistics.report()["max_turn_rate"] == rate
