"""Positions of something that moves."""

from __future__ import annotations

import math
from typing import Any

from streams.entries.accumulators import ExactSum, Highest, finite
from streams.entries.base import BuiltIn, Entry, Statistics
from streams.entries.rendering import number


class Position(Entry):
    """A place in any unit of length, a speed in any unit, and a heading in degrees."""

    x: float
    y: float
    z: float
    spd: float
    hdg: float

    def fields(self) -> str:
        place = f"{number(self.x)},{number(self.y)},{number(self.z)}"
        return f"{place} speed {number(self.spd)} heading {number(self.hdg)}"


def distance(before: Position, after: Position) -> float:
    """Straight from one position to the next."""
    return finite(math.dist((before.x, before.y, before.z), (after.x, after.y, after.z)))


def turn_rate(before: Position, after: Position) -> float:
    """Degrees turned per second, the shorter way round, at most 180 degrees; per entry where the times do not tell."""
    turned = abs(math.remainder(math.remainder(after.hdg, 360) - math.remainder(before.hdg, 360), 360))
    if before.timestamp is None or after.timestamp is None or before.timestamp == after.timestamp:
        return turned
    return turned / abs(after.timestamp - before.timestamp)


class PositionStatistics(Statistics[Position]):
    """Where it is, how far it came, how fast and how sharply it moved."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed)
        self._speeds = self.each(ExactSum(), lambda position: position.spd)
        self._fastest = self.each(Highest[float](windowed), lambda position: position.spd)
        self._distance = self.pairs(ExactSum(), distance)
        self._sharpest = self.pairs(Highest[float](windowed), turn_rate)

    def report(self) -> dict[str, Any]:
        last = self.last
        return {
            "count": self.count,
            "current_position": {axis: getattr(last, axis) if last else 0.0 for axis in "xyz"},
            "current_speed": last.spd if last else 0.0,
            "current_heading": last.hdg if last else 0.0,
            "total_distance": self._distance.value,
            "max_speed": self._fastest.value or 0.0,
            "avg_speed": self._speeds.over(self.count),
            "max_turn_rate": self._sharpest.value or 0.0,
        }


SPATIAL = BuiltIn("spatial", Position, PositionStatistics)
