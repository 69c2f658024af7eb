"""The workload: real hourly candles of EUR/USD, and the lines that the model reads of them."""

from __future__ import annotations

import csv
import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from streams.entries import BUILTIN

CANDLE_TOKENS = 42
"""Of the line of a candle, about."""
QUESTION = "Is the price rising or falling? Answer with one word."

_CARRIED_BY, _FILE = "backtesting", "EURUSD.csv"
_OHLCV = BUILTIN["ohlcv"]


@dataclass(frozen=True, slots=True)
class Candle:
    """Open, high, low and close in dollars, and volume."""

    o: float
    h: float
    l: float  # noqa: E741
    c: float
    v: float

    @property
    def entry(self) -> dict[str, float]:
        """As an ``ohlcv`` entry."""
        return asdict(self)

    @property
    def line(self) -> str:
        """As the model reads the entry."""
        return _OHLCV.line(_OHLCV.parse(self.entry, "candle"))


def read(path: Path) -> list[Candle]:
    """The candles of a CSV file with a header, oldest first.

    Raises:
        ValueError: a row is not one of numbers.
        KeyError: a column is missing.
    """
    with path.open(newline="") as file:
        return [
            Candle(*(float(row[name]) for name in ("Open", "High", "Low", "Close", "Volume")))
            for row in csv.DictReader(file)
        ]


def load() -> list[Candle]:
    """The candles that the installed distribution carries. It is not imported.

    Raises:
        RuntimeError: it is not installed, or has no such file any more.
    """
    try:
        files = importlib.metadata.files(_CARRIED_BY) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == _FILE:
            return read(Path(str(file.locate())))
    raise RuntimeError(f"there is no {_FILE} in the package {_CARRIED_BY}; run make setup")


class Feed:
    """Candles that no side has seen, so that nothing is found in a cache by accident.

    The file is gone through again and again, each time with prices a little higher.
    """

    def __init__(self) -> None:
        self._candles = self._endless()

    def _endless(self) -> Iterator[Candle]:
        candles, lap = load(), 0
        while True:
            for candle in candles:
                prices = (round(price + lap / 100, 5) for price in (candle.o, candle.h, candle.l, candle.c))
                yield Candle(*prices, candle.v)
            lap += 1

    def take(self, count: int) -> list[Candle]:
        """The next ``count``."""
        return [next(self._candles) for _ in range(count)]
