"""Many sessions, and fast producers: answers per second, and how old what they know is."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from bench.askahead import Client
from bench.beside import beside
from bench.candles import Feed
from bench.rows import Result, Row, Series, milliseconds, percentile
from bench.servers import Fleet

_QUERY = {"query": "Is the price rising or falling?", "choices": ["rising", "falling"]}
_TICK_SECONDS = 1.0
_FIRST = 2
"""Candles that a session begins with."""
_MOST = 120
"""Candles at one pace: they must fit into the context."""

Hear = Callable[[str, dict[str, Any]], None]


async def measure(fleet: Fleet, full: bool) -> Result:
    """One Flash Query for each session; streams without windows, so that nothing but pushes makes versions."""
    seconds = 30.0 if full else 10.0
    counts = (1, 10, 50, 200) if full else (1, 50)
    paces = (0.5, 1, 2, 4, 8, 16) if full else (1, 8)
    await fleet.keep("askahead")
    result = Result(rounds=1)
    answers, ages = [], []
    feed = Feed()
    async with Client(await fleet.get("askahead")) as ours:
        for count in counts:
            rate, stale = await _closed(ours, feed, count, seconds)
            answers.append((float(count), rate))
            of = f"{count} session{'s' if count > 1 else ''}, a candle a second each"
            result.rows.append(Row(measure=f"{of}: answers", value=rate, unit="/s"))
            result.rows += _staleness(of, stale)
        for pace in paces:
            stale = await _open(ours, feed, pace, seconds)
            ages.append((float(pace), percentile(stale, 0.5)))
            result.rows += _staleness(f"one session, {pace:g} candles a second", stale)
    result.series["answers"] = Series("Answers a second", "sessions", "answers per second", {"Askahead": answers})
    result.series["staleness"] = Series(
        "From a candle's push to the first answer that knows it", "candles per second", "milliseconds", {"p50": ages}
    )
    return result


def _staleness(of: str, stale: list[float]) -> list[Row]:
    return [
        Row(measure=f"{of}: push to the answer that knows it, {name}", value=percentile(stale, share), unit="ms")
        for name, share in (("p50", 0.5), ("p95", 0.95))
    ]


async def _closed(ours: Client, feed: Feed, count: int, seconds: float) -> tuple[float, list[float]]:
    """Each session's next candle comes a second after the last, or with the answer over that one if this is later.

    Returns:
        Answers per second over all sessions, and milliseconds from each candle to its answer.
    """
    names = [f"s{count}-{number}" for number in range(count)]
    for name in names:
        await _begin(ours, feed, id=name)
    for name in names:
        await ours.settle(name)
    answered = {name: asyncio.Event() for name in names}
    stale: list[float] = []
    in_time: list[bool] = []

    def hear(kind: str, data: dict[str, Any]) -> None:
        if kind == "flash_ready":
            answered[data["session_id"]].set()

    async def produce(name: str) -> None:
        while (started := time.perf_counter()) < until:
            answered[name].clear()
            await ours.push(name, [candle.entry for candle in feed.take(1)])
            await answered[name].wait()
            now = time.perf_counter()
            stale.append(now - started)
            in_time.append(now < until)
            await asyncio.sleep(started + _TICK_SECONDS - now)

    async with _listening(ours, f"/v1/events?prefix=s{count}-", hear), asyncio.timeout(seconds + 120):
        until = time.perf_counter() + seconds
        await asyncio.gather(*map(produce, names))
    for name in names:
        await ours.delete(name)
    return sum(in_time) / seconds, milliseconds(stale)


async def _open(ours: Client, feed: Feed, pace: float, seconds: float) -> list[float]:
    """Candles at a steady pace, whatever the server does.

    Returns:
        Milliseconds from each push to the first answer over it.
    """
    session = await _begin(ours, feed)
    await ours.settle(session)
    waiting: deque[tuple[int, float]] = deque()
    stale: list[float] = []
    entries: dict[int, int] = {}

    def hear(kind: str, data: dict[str, Any]) -> None:
        if kind == "data_updated":
            entries[data["data_version"]] = data["entries"]
        elif kind == "flash_ready":
            while waiting and waiting[0][0] <= entries.get(data["data_version"], 0):
                stale.append(time.perf_counter() - waiting.popleft()[1])

    async with _listening(ours, f"/v1/sessions/{session}/events", hear), asyncio.timeout(seconds + 120):
        started = time.perf_counter()
        for number in range(1, min(_MOST, int(pace * seconds)) + 1):
            await asyncio.sleep(started + number / pace - time.perf_counter())
            waiting.append((_FIRST + number, time.perf_counter()))
            await ours.push(session, [candle.entry for candle in feed.take(1)])
        while waiting:
            await asyncio.sleep(0.05)
    await ours.delete(session)
    return milliseconds(stale)


async def _begin(ours: Client, feed: Feed, **options: str) -> str:
    session = await ours.create(type="ohlcv", flash=[_QUERY], **options)
    await ours.push(session, [candle.entry for candle in feed.take(_FIRST)])
    return session


@asynccontextmanager
async def _listening(ours: Client, path: str, hear: Hear) -> AsyncIterator[None]:
    """Have events told, from after the replay of what there is already."""

    async def listen() -> None:
        async with aclosing(ours.events(path)) as events:
            async for kind, data in events:
                hear(kind, data)

    async with beside(listen(), 1.0):
        yield
