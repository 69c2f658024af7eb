"""Reading: how fast with nobody waiting, and what a question waits beside it."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bench.askahead import Client
from bench.beside import beside
from bench.candles import Feed
from bench.rows import Result, Row, at_least, at_most, compared, milliseconds
from bench.servers import Fleet

_BATCH = 55
"""Candles: 2,500 tokens."""
_IDLE_QUESTIONS = 7


@asynccontextmanager
async def reading(client: Client, feed: Feed) -> AsyncIterator[None]:
    """Keep the engine reading: 2,500 tokens after 2,500 tokens, three times into each session."""

    async def read() -> None:
        while True:
            session = await client.create(type="ohlcv")
            try:
                for _ in range(3):
                    await client.read(session, [candle.entry for candle in feed.take(_BATCH)])
            finally:
                await client.delete(session)

    async with beside(read(), 0.5):
        yield


async def measure(fleet: Fleet, full: bool) -> Result:
    """See :func:`_alone` and :func:`_beside`."""
    rounds = 5 if full else 3
    await fleet.keep("askahead", "floor")
    feed = Feed()
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Client(await fleet.get("askahead")))
        floor = await stack.enter_async_context(Client(await fleet.get("floor")))
        return Result([await _alone(ours, floor, feed, rounds), *await _beside(ours, feed, rounds)], rounds=rounds)


async def _alone(ours: Client, floor: Client, feed: Feed, rounds: int) -> Row:
    """One push of 4,000 tokens until it is resident, against the same tokens as one cold prompt of the same engine."""
    rates: dict[str, list[float]] = {"ours": [], "raw": []}
    for number in range(rounds):
        candles = feed.take(90)
        for side in ("raw", "ours") if number % 2 else ("ours", "raw"):
            if side == "raw":
                found = await floor.post("/cold/prefill", {"lines": [candle.line for candle in candles]})
                rates[side].append(found["tokens"] / found["seconds"])
            else:
                session = await ours.create(type="ohlcv")
                started = time.perf_counter()
                await ours.read(session, [candle.entry for candle in candles])
                seconds = time.perf_counter() - started
                rates[side].append((await ours.session(session))["tokens"] / seconds)
                await ours.delete(session)
    against = "one cold prompt of AsyncLLM"
    return compared("ingest, nobody waiting", rates["ours"], rates["raw"], "tokens/s", against, at_least(0.9))


async def _beside(ours: Client, feed: Feed, rounds: int) -> list[Row]:
    """Questions on one stream, idle and then without a pause while 2,500 tokens are read into another."""
    asked = await ours.create(type="ohlcv")
    await ours.read(asked, [candle.entry for candle in feed.take(20)])
    idle, beside, worst, ratios, rates = [], [], [], [], []
    serial = iter(range(10**6))
    for _ in range(rounds):
        alone = [await _first(ours, asked, next(serial)) for _ in range(_IDLE_QUESTIONS)]
        fed = await ours.create(type="ohlcv")
        started = time.perf_counter()
        read = asyncio.create_task(ours.read(fed, [candle.entry for candle in feed.take(_BATCH)]))
        busy = []
        while not read.done():
            busy.append(await _first(ours, asked, next(serial)))
        await read
        rates.append((await ours.session(fed))["tokens"] / (time.perf_counter() - started))
        await ours.delete(fed)
        idle += alone
        beside += busy
        worst.append(max(busy))
        ratios.append(max(busy) / statistics.median(alone))
    await ours.delete(asked)
    usual = statistics.median(milliseconds(idle))
    return [
        Row(
            measure="worst first token while 2,500 tokens are read, median of the rounds",
            value=statistics.median(milliseconds(worst)),
            unit="ms",
            against="idle",
            baseline=usual,
            ratio=statistics.median(ratios),
            target=at_most(4),
        ),
        Row(
            measure=f"the worst of all {len(beside)} questions",
            value=max(worst) * 1e3,
            unit="ms",
            against="idle",
            baseline=usual,
            ratio=max(worst) * 1e3 / usual,
        ),
        Row(measure="ingest beside questions without a pause", value=statistics.median(rates), unit="tokens/s"),
    ]


async def _first(ours: Client, session: str, number: int) -> float:
    return (await ours.ask(session, f"Was close number {number} high?", 4)).first
