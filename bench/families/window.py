"""A stream in a window, fed without a pause: questions while it moves and between, and what moving costs."""

from __future__ import annotations

import asyncio
import statistics

from bench.askahead import Client
from bench.candles import Feed
from bench.rows import Result, Row, at_most, milliseconds
from bench.servers import Fleet

_WINDOW = 2048
_AT_ONCE = 4


async def measure(fleet: Fleet, full: bool) -> Result:
    """Candles are pushed as fast as they are read, and a question comes twice a second."""
    candles = 360 if full else 160
    await fleet.keep("askahead")
    feed = Feed()
    async with Client(await fleet.get("askahead")) as ours:
        session = await ours.create(type="ohlcv", window=_WINDOW)

        async def produce() -> None:
            for _ in range(0, candles, _AT_ONCE):
                await ours.read(session, [candle.entry for candle in feed.take(_AT_ONCE)])

        begun = await _read(ours)
        producing = asyncio.create_task(produce())
        longest, number = 0, 0
        moving: list[float] = []
        between: list[float] = []
        while not producing.done():
            number += 1
            _, before = await _read(ours)
            first = (await ours.ask(session, f"What was close number {number}?")).first
            _, after = await _read(ours)
            tokens = (await ours.session(session))["tokens"]
            longest = max(longest, tokens)
            if after > before:
                moving.append(first)
            elif tokens > _WINDOW // 2:
                between.append(first)
            await asyncio.sleep(0.5)
        await producing
        slack = (await ours.session(session))["window_slack"]
        pushed, again = (end - start for end, start in zip(await _read(ours), begun, strict=True))
        await ours.delete(session)
    beside, usual = statistics.median(milliseconds(moving)), statistics.median(milliseconds(between))
    limit = float(_WINDOW + slack)
    return Result(
        [
            Row(
                measure="first token while a window moves",
                value=beside,
                unit="ms",
                against="between",
                baseline=usual,
                ratio=beside / usual,
                target=at_most(3),
            ),
            Row(
                measure="tokens read in all",
                value=pushed + again,
                unit="tokens",
                against="tokens pushed",
                baseline=pushed,
                ratio=(pushed + again) / pushed,
                target=at_most(2.2),
            ),
            Row(
                measure="longest that the stream was",
                value=longest,
                unit="tokens",
                against="window and slack",
                baseline=limit,
                ratio=longest / limit,
                target=at_most(1),
            ),
        ],
        rounds=1,
    )


async def _read(ours: Client) -> tuple[int, int]:
    """Tokens read because they were pushed, and because a window moved."""
    health = await ours.get("/health")
    return health["session_ingested_tokens"], health["session_window_tokens"]
