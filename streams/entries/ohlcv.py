"""Candles: open, high, low, close and volume of an interval."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from streams.entries.accumulators import ExactSum, Highest, Lowest, nearest
from streams.entries.base import BuiltIn, Entry, Name, Statistics
from streams.entries.rendering import number, word


class Candle(Entry):
    """Prices in one currency, volume in units traded."""

    o: float
    h: float
    l: float  # noqa: E741
    c: float
    v: float
    sym: Name | None = None

    def fields(self) -> str:
        symbol = "" if self.sym is None else f"{word(self.sym)} "
        prices = f"open {number(self.o)} high {number(self.h)} low {number(self.l)} close {number(self.c)}"
        return f"{symbol}{prices} volume {number(self.v)}"


class CandleStatistics(Statistics[Candle]):
    """The range, the volume and the change from the first open to the last close."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed)
        self._high = self.each(Highest[float](windowed), lambda candle: candle.h)
        self._low = self.each(Lowest[float](windowed), lambda candle: candle.l)
        self._volume = self.each(Highest[float](windowed), lambda candle: candle.v)
        self._closes = self.each(ExactSum(), lambda candle: candle.c)

    def report(self) -> dict[str, Any]:
        opened = Fraction(self.first.o if self.first else 0)
        closed = Fraction(self.last.c if self.last else 0)
        return {
            "count": self.count,
            "max_high": self._high.value or 0.0,
            "max_high_index": self._high.index,
            "min_low": self._low.value or 0.0,
            "min_low_index": self._low.index,
            "max_volume": self._volume.value or 0.0,
            "first_open": float(opened),
            "last_close": float(closed),
            "avg_close": self._closes.over(self.count),
            "change": nearest(closed - opened),
            # Without a price to start from there is no percentage.
            "change_pct": nearest((closed - opened) / opened * 100) if opened else 0.0,
        }


OHLCV = BuiltIn("ohlcv", Candle, CandleStatistics)
