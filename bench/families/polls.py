"""Answers that are there: flash hits and polls, one connection and many."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import orjson

from bench.askahead import Client
from bench.candles import QUESTION, Feed
from bench.families.ingest import reading
from bench.load import Plan, load
from bench.rows import Result, Row, at_least, at_most, compared
from bench.servers import Fleet

_QUERIES = (
    {"query": QUESTION, "max_tokens": 1},
    {"query": "Is the volume high?", "choices": ["yes", "no"]},
    {"query": "Is the last candle green or red?", "choices": ["green", "red"]},
)
_HITS_PER_SECOND = 100
_OK = "HTTP/1.1 200"


async def measure(fleet: Fleet, full: bool) -> Result:
    """Hits come at a steady rate, from a dashboard say; polls as fast as the server answers them."""
    rounds, seconds = (5, 3.0) if full else (3, 1.5)
    result = Result(rounds=rounds)
    feed = Feed()
    await fleet.keep("askahead", "aiohttp")
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(Client(await fleet.get("askahead")))
        bare = await stack.enter_async_context(Client(await fleet.get("aiohttp")))
        session = await ours.create(type="ohlcv", flash=_QUERIES)
        await ours.read(session, [candle.entry for candle in feed.take(40)])
        await ours.settle(session)
        result.rows += await _hits(ours, session, feed, seconds * 10)
        path = f"/v1/sessions/{session}/flash"
        body, headers = await ours.headers(path)
        await bare.tell(body, headers)
        for connections in (1, 32, 200):
            result.rows += await _polls(ours, path, bare, connections, rounds, seconds)
        await ours.delete(session)
    return result


async def _hits(ours: Client, session: str, feed: Feed, seconds: float) -> list[Row]:
    """Idle, and while another session reads one candle after another as fast as the engine can."""
    body = orjson.dumps({"prompt": QUESTION, "max_tokens": 1}).decode()
    plan = Plan(
        port=ours.server.port,
        seconds=seconds,
        requests=[
            f"POST /v1/sessions/{session}/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        ],
        marker='"flash":true',
        interval=1 / _HITS_PER_SECOND,
    )
    idle = await load(plan)
    async with reading(ours, feed):
        beside = await load(plan)
    return [
        Row(measure="flash hit over HTTP keep-alive, idle, p50", value=idle.p50, unit="ms", target=at_most(1)),
        Row(measure="flash hit over HTTP keep-alive, idle, p99", value=idle.p99, unit="ms", target=at_most(3)),
        Row(measure="flash hit while the engine ingests, p50", value=beside.p50, unit="ms"),
        Row(measure="flash hit while the engine ingests, p99", value=beside.p99, unit="ms", target=at_most(10)),
    ]


async def _polls(ours: Client, path: str, bare: Client, connections: int, rounds: int, seconds: float) -> list[Row]:
    plans = {
        client: Plan(
            port=client.server.port,
            seconds=seconds,
            requests=[f"GET {where} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"],
            marker=_OK,
            connections=connections,
        )
        for client, where in ((ours, path), (bare, "/"))
    }
    rates: dict[Client, list[float]] = {ours: [], bare: []}
    slowest: dict[Client, list[float]] = {ours: [], bare: []}
    for number in range(rounds):
        for client in (bare, ours) if number % 2 else (ours, bare):
            found = await load(plans[client])
            rates[client].append(found.rate)
            slowest[client].append(found.p99)
            await asyncio.sleep(0.2)
    of = f"{connections} connection{'s' if connections > 1 else ''}"
    target = at_least(0.7) if connections == 32 else None
    return [
        compared(f"polls per second, {of}", rates[ours], rates[bare], "/s", "bare aiohttp handler", target),
        compared(f"poll, {of}, p99", slowest[ours], slowest[bare], "ms", "bare aiohttp handler"),
    ]
