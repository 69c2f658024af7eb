"""Vital signs of one adult at rest."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from streams.entries.accumulators import ExactSum, Highest, Lowest, Total, nearest
from streams.entries.base import BuiltIn, Entry, Statistics
from streams.entries.rendering import number

# Adults at rest: above and below these rates the American Heart Association speaks of tachycardia and bradycardia.
TACHYCARDIA, BRADYCARDIA = 100.0, 60.0
# Per cent; below it WHO's pulse oximetry manual (2011) calls it an emergency.
HYPOXIA = 90.0
# °C; from there on CDC reports a fever (42 CFR 70.1).
FEVER = 38.0


class Vitals(Entry):
    """Beats per minute, millimetres of mercury, per cent, degrees Celsius."""

    hr: float
    bp_s: float
    bp_d: float
    spo2: float
    temp: float

    @property
    def bp(self) -> str:
        """Systolic over diastolic pressure, as it is written in charts."""
        return f"{number(self.bp_s)}/{number(self.bp_d)}"

    def fields(self) -> str:
        return f"hr {number(self.hr)} bp {self.bp} spo2 {number(self.spo2)} temp {number(self.temp)}"


CONDITIONS: dict[str, Callable[[Vitals], bool]] = {
    "tachycardia_episodes": lambda vitals: vitals.hr > TACHYCARDIA,
    "bradycardia_episodes": lambda vitals: vitals.hr < BRADYCARDIA,
    "hypoxia_episodes": lambda vitals: vitals.spo2 < HYPOXIA,
    "fever_episodes": lambda vitals: vitals.temp >= FEVER,
}


class VitalsStatistics(Statistics[Vitals]):
    """An episode is a longest run of entries in its condition."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed)
        self._rates = self.each(ExactSum(), lambda vitals: vitals.hr)
        self._systolic = self.each(ExactSum(), lambda vitals: vitals.bp_s)
        self._diastolic = self.each(ExactSum(), lambda vitals: vitals.bp_d)
        self._oxygen = self.each(Lowest[float](windowed), lambda vitals: vitals.spo2)
        self._temperature = self.each(Highest[float](windowed), lambda vitals: vitals.temp)
        self._onsets = {name: self.pairs(Total(), _onset(holds)) for name, holds in CONDITIONS.items()}

    def report(self) -> dict[str, Any]:
        last = self.last
        return {
            "count": self.count,
            "current": {
                "hr": last.hr if last else 0.0,
                "bp": last.bp if last else "",
                "spo2": last.spo2 if last else 0.0,
                "temp": last.temp if last else 0.0,
                "map": nearest((Fraction(last.bp_s) + 2 * Fraction(last.bp_d)) / 3) if last else 0.0,
            },
            "avg_heart_rate": self._rates.over(self.count),
            "avg_map": nearest(self._systolic.exact + 2 * self._diastolic.exact, 3 * self.count),
            "min_spo2": self._oxygen.value or 0.0,
            "max_temp": self._temperature.value or 0.0,
            "alerts": {name: self._episodes(name) for name in CONDITIONS},
        }

    def _episodes(self, name: str) -> int:
        """One that the first entry is already in, and those that began later."""
        return self._onsets[name].value + (self.first is not None and CONDITIONS[name](self.first))


def _onset(holds: Callable[[Vitals], bool]) -> Callable[[Vitals, Vitals], bool]:
    return lambda before, after: holds(after) and not holds(before)


VITALS = BuiltIn("vitals", Vitals, VitalsStatistics)
