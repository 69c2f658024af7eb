"""The benchmark's workload."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.candles import Candle, Feed, load, read

_CSV = ",Open,High,Low,Close,Volume\n2017-04-19 09:00:00,1.0716,1.0722,1.07083,1.07219,1413\n"


def test_a_csv_file_is_read_into_candles(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(_CSV)
    (candle,) = read(tmp_path / "x.csv")
    assert candle == Candle(1.0716, 1.0722, 1.07083, 1.07219, 1413)
    assert candle.entry == {"o": 1.0716, "h": 1.0722, "l": 1.07083, "c": 1.07219, "v": 1413}
    assert candle.line == "open 1.0716 high 1.0722 low 1.07083 close 1.07219 volume 1413"


def test_a_broken_csv_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(_CSV.replace("1413", "many"))
    with pytest.raises(ValueError, match="many"):
        read(tmp_path / "x.csv")


def test_the_installed_data_is_real_candles() -> None:
    candles = load()
    assert len(candles) == 5000
    assert all(candle.l <= min(candle.o, candle.c) <= max(candle.o, candle.c) <= candle.h for candle in candles)


def test_a_feed_never_repeats_itself() -> None:
    feed = Feed()
    first, second = feed.take(5000), feed.take(5000)
    assert first == load()
    assert set(first).isdisjoint(second)
