"""Sensor readings, each with the range that is normal for it."""

from __future__ import annotations

from typing import Any

from streams.entries.accumulators import ExactSum, Highest, Lowest, Total
from streams.entries.base import BuiltIn, Entry, Name, Statistics
from streams.entries.rendering import number, word


class Reading(Entry):
    """A sensor, its value, and the lowest and the highest that are normal."""

    sid: Name
    val: float
    lo: float
    hi: float

    @property
    def breach(self) -> bool:
        """Whether the value is outside of its range; the thresholds themselves are inside."""
        return not self.lo <= self.val <= self.hi

    def fields(self) -> str:
        return f"{word(self.sid)} {number(self.val)} [{number(self.lo)},{number(self.hi)}]"


class ReadingStatistics(Statistics[Reading]):
    """Over all sensors of the stream together."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed)
        self._lowest = self.each(Lowest[float](windowed), lambda reading: reading.val)
        self._highest = self.each(Highest[float](windowed), lambda reading: reading.val)
        self._values = self.each(ExactSum(), lambda reading: reading.val)
        self._breaches = self.each(Total(), lambda reading: reading.breach)

    def report(self) -> dict[str, Any]:
        last, breaches = self.last, self._breaches.value
        return {
            "count": self.count,
            "last_sensor": last.sid if last else "",
            "last_value": last.val if last else 0.0,
            "min_value": self._lowest.value or 0.0,
            "max_value": self._highest.value or 0.0,
            "avg_value": self._values.over(self.count),
            "threshold_breaches": breaches,
            "breach_rate": breaches / self.count if self.count else 0.0,
        }


IOT = BuiltIn("iot", Reading, ReadingStatistics)
