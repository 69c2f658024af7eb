from __future__ import annotations

from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.entries import BUILTIN
from tests.streams.entries.kit import MOVES, NAMES, NUMBERS, average, entries, exact, replay

OHLCV = BUILTIN["ohlcv"]
CANDLES = entries(dict.fromkeys("ohlcv", NUMBERS), sym=st.one_of(st.none(), NAMES))


def naive(candles: list[dict[str, Any]]) -> dict[str, Any]:
    highs, lows = [candle["h"] for candle in candles] or [0], [candle["l"] for candle in candles] or [0]
    opened, closed = (candles[0]["o"], candles[-1]["c"]) if candles else (0, 0)
    change = Fraction(closed) - Fraction(opened)
    return {
        "count": len(candles),
        "max_high": max(highs),
        "max_high_index": highs.index(max(highs)),
        "min_low": min(lows),
        "min_low_index": lows.index(min(lows)),
        "max_volume": max((candle["v"] for candle in candles), default=0),
        "first_open": opened,
        "last_close": closed,
        "avg_close": average([candle["c"] for candle in candles]),
        "change": exact(change),
        "change_pct": exact(100 * change / Fraction(opened)) if opened else 0,
    }


@given(CANDLES, MOVES)
def test_statistics_are_those_of_the_list(candles: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(OHLCV, naive, candles, moves)


def test_a_candle_is_one_short_line() -> None:
    candle = {"o": 185.50, "h": 186.20, "l": 185.10, "c": 185.80, "v": 12500}
    assert OHLCV.line(OHLCV.parse(candle, "data.0")) == "open 185.5 high 186.2 low 185.1 close 185.8 volume 12500"
    candle |= {"sym": "BRK B", "timestamp": 1735689600}
    assert (
        OHLCV.line(OHLCV.parse(candle, "data.0"))
        == '@1735689600 "BRK B" open 185.5 high 186.2 low 185.1 close 185.8 volume 12500'
    )
