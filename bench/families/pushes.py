"""Acknowledged pushes over a websocket: how many a second, and how soon."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from bench.askahead import Client
from bench.candles import Candle, Feed
from bench.families.ingest import reading
from bench.load import Plan, load
from bench.rows import Result, Row, at_least, at_most
from bench.servers import Fleet

_BATCH = 100
_BATCHES = 50
"""Different ones, sent in turn."""
_IDLE_PER_SECOND, _BESIDE_PER_SECOND = 5, 20
_ACKNOWLEDGED = '"push_ack"'


async def measure(fleet: Fleet, full: bool) -> Result:
    """Sessions have windows, so that there is always room; what the model cannot read in time waits or is displaced."""
    rounds, seconds = (5, 4.0) if full else (3, 2.0)
    await fleet.keep("askahead")
    feed = Feed()
    result = Result(rounds=rounds)
    async with Client(await fleet.get("askahead")) as ours:
        result.rows += await _single(ours, feed, seconds * 10)
        for kind, entry in (
            ("lines of text", lambda candle: candle.line),
            ("ohlcv entries", lambda candle: candle.entry),
        ):
            result.rows += await _batches(ours, feed, kind, entry, rounds, seconds)
    return result


async def _single(ours: Client, feed: Feed, seconds: float) -> list[Row]:
    """One candle a message, with time to read it between, and while another session is read into without a pause."""
    session = await ours.create(type="ohlcv", window=2048)
    messages = [_message(session, [candle.entry]) for candle in feed.take(_BATCHES)]
    plan = Plan(
        port=ours.server.port,
        seconds=seconds,
        requests=messages,
        marker=_ACKNOWLEDGED,
        socket="/v1/ws",
        interval=1 / _IDLE_PER_SECOND,
    )
    idle = await load(plan)
    async with reading(ours, feed):
        beside = await load(replace(plan, interval=1 / _BESIDE_PER_SECOND))
    await ours.delete(session)
    return [
        Row(measure="push of one candle to its ack, idle, p50", value=idle.p50, unit="ms"),
        Row(measure="push of one candle to its ack, idle, p99", value=idle.p99, unit="ms", target=at_most(10)),
        Row(measure="push of one candle to its ack, while the engine ingests, p50", value=beside.p50, unit="ms"),
        Row(
            measure="push of one candle to its ack, while the engine ingests, p99",
            value=beside.p99,
            unit="ms",
            target=at_most(10),
        ),
    ]


async def _batches(
    ours: Client, feed: Feed, kind: str, entry: Callable[[Candle], Any], rounds: int, seconds: float
) -> list[Row]:
    """Batches of 100, two under way, as fast as they are acknowledged."""
    rates, p50, p99 = [], [], []
    for _ in range(rounds):
        session = await ours.create(type="ohlcv", window=2048)
        messages = [_message(session, [entry(candle) for candle in feed.take(_BATCH)]) for _ in range(_BATCHES)]
        found = await load(
            Plan(
                port=ours.server.port,
                seconds=seconds,
                requests=messages,
                marker=_ACKNOWLEDGED,
                socket="/v1/ws",
                outstanding=2,
            )
        )
        await ours.delete(session)
        rates.append(found.rate * _BATCH)
        p50.append(found.p50)
        p99.append(found.p99)
    of = f"batches of {_BATCH} {kind}"
    target = at_least(20_000) if kind == "lines of text" else None
    return [
        Row(measure=f"acknowledged over a websocket, {of}", value=statistics.median(rates), unit="/s", target=target),
        Row(measure=f"ack at that rate, {of}, p50", value=statistics.median(p50), unit="ms"),
        Row(measure=f"ack at that rate, {of}, p99", value=statistics.median(p99), unit="ms"),
    ]


def _message(session: str, entries: list[Any]) -> str:
    return orjson.dumps({"type": "push", "session_id": session, "data": entries}).decode()
