"""Memory of all processes together, without the KV pool's own: idle, per session, and after many sessions."""

from __future__ import annotations

import asyncio

from bench.askahead import Client
from bench.candles import Feed
from bench.rows import Result, Row, at_most
from bench.servers import Fleet

_KIB, _MIB = 2**10, 2**20
_CONTEXT = 45
"""Candles: 2,000 tokens."""
_CHURNED, _AT_ONCE = 500, 8
_WARM_UP = 50
_SETTLE_SECONDS = 2.0


async def measure(fleet: Fleet, full: bool) -> Result:
    """A server with a pool small enough to be written to once, so that its pages are memory from the start."""
    gib = 2 if full else 1
    await fleet.keep()
    server = await fleet.fresh("askahead", "--kv-cache-gb", str(gib))
    feed = Feed()
    async with Client(server) as ours:
        idle = server.memory()
        room = (await ours.get("/health"))["kv_pages_total"] * 32
        await _sessions(ours, feed, room // (_CONTEXT * 45) + 2)
        await _churn(ours, feed, _WARM_UP)
        before = await _settled(ours)
        count = (room - 8192) // (_CONTEXT * 46) - 1
        kept = [await _session(ours, feed) for _ in range(count)]
        per_session = (await _settled(ours) - before) / count
        resident = (await ours.get("/health"))["sessions_resident"]
        for session in kept:
            await ours.delete(session)
        if resident != count:
            raise RuntimeError(f"{count} sessions were meant to be resident, and {resident} are")
        before = await _settled(ours)
        await _churn(ours, feed, _CHURNED)
        after = await _settled(ours)
    await fleet.keep()
    return Result(
        [
            Row(measure="idle, before anything was asked", value=idle / _MIB, unit="MiB"),
            Row(
                measure=f"per further session of 2,000 tokens, of {count}, outside the KV pool",
                value=per_session / _KIB,
                unit="KiB",
                target=at_most(200),
            ),
            Row(
                measure=f"after {_CHURNED} sessions of create, push, delete",
                value=after / _MIB,
                unit="MiB",
                against="before them",
                baseline=before / _MIB,
                ratio=after / before,
                target=at_most(1.03),
            ),
        ],
        rounds=1,
    )


async def _session(ours: Client, feed: Feed) -> str:
    session = await ours.create(type="ohlcv")
    await ours.read(session, [candle.entry for candle in feed.take(_CONTEXT)])
    return session


async def _sessions(ours: Client, feed: Feed, count: int) -> None:
    """Write to every block of the pool: the ones never used are taken first."""
    for session in [await _session(ours, feed) for _ in range(count)]:
        await ours.delete(session)


async def _churn(ours: Client, feed: Feed, count: int) -> None:
    async def one() -> None:
        session = await ours.create(type="ohlcv")
        await ours.read(session, [candle.entry for candle in feed.take(2)])
        await ours.delete(session)

    for _ in range(0, count, _AT_ONCE):
        await asyncio.gather(*(one() for _ in range(_AT_ONCE)))


async def _settled(ours: Client) -> int:
    await asyncio.sleep(_SETTLE_SECONDS)
    return ours.server.memory()
