"""From a push to its answers: Flash Queries, and the ready position."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import aclosing

from tokenizers import Tokenizer

from bench.askahead import Client
from bench.candles import Feed
from bench.rows import Result, Row, at_most, compared, milliseconds, percentile
from bench.servers import Fleet

_CONTEXT = 45
"""Candles: 2,000 tokens."""
_HITS = 200


async def measure(fleet: Fleet, full: bool) -> Result:
    """See :func:`_waves` and :func:`_ready`."""
    rounds = 7 if full else 3
    await fleet.keep("askahead")
    feed = Feed()
    result = Result(rounds=rounds)
    async with Client(await fleet.get("askahead")) as ours:
        for count in (1, 5, 20):
            result.rows += await _waves(ours, feed, count, rounds)
        result.rows += await _ready(ours, feed, Tokenizer.from_file(str(fleet.model / "tokenizer.json")))
    return result


async def _waves(ours: Client, feed: Feed, count: int, rounds: int) -> list[Row]:
    """From the push of a candle to each query's answer; of many queries, against as many questions asked in turn."""
    queries = [{"query": f"Is close number {number} high?", "max_tokens": 1} for number in range(count)]
    session = await ours.create(type="ohlcv", flash=queries)
    await ours.read(session, [candle.entry for candle in feed.take(_CONTEXT)])
    await ours.settle(session)
    pushed, waves, asked = [], [], []
    for number in range(rounds):
        for side in ("asked", "wave") if number % 2 else ("wave", "asked"):
            if side == "wave":
                whole, wave = await _wave(ours, session, feed, count)
                pushed.append(whole)
                waves.append(wave)
            elif count > 1:
                started = time.perf_counter()
                for index in range(count):
                    await ours.ask(session, f"Is high number {number * count + index} high?")
                asked.append(time.perf_counter() - started)
    await ours.delete(session)
    rows = [Row(measure=f"push to {count} fresh", value=statistics.median(milliseconds(pushed)), unit="ms")]
    if asked:
        target = at_most(0.38) if count == 20 else None
        one_by_one = f"{count} questions in turn"
        rows.append(
            compared(
                f"batch resident to {count} fresh", milliseconds(waves), milliseconds(asked), "ms", one_by_one, target
            )
        )
        rows.append(compared(f"push to {count} fresh", milliseconds(pushed), milliseconds(asked), "ms", one_by_one))
    return rows


async def _wave(ours: Client, session: str, feed: Feed, count: int) -> tuple[float, float]:
    """Seconds to the last answer, from the push and from when the candle was resident, as a subscriber sees them."""
    before = (await ours.session(session))["data_version"]
    started = resident = last = 0.0
    async with asyncio.timeout(120), aclosing(ours.events(f"/v1/sessions/{session}/events")) as events:
        replayed = left = count
        async for name, data in events:
            if replayed and name == "flash_ready":
                replayed -= 1
                if not replayed:
                    started = time.perf_counter()
                    await ours.push(session, [feed.take(1)[0].entry])
            elif name == "data_updated":
                resident = time.perf_counter()
            elif name == "flash_ready" and data["data_version"] > before:
                left -= 1
                if not left:
                    last = time.perf_counter()
                    break
    return last - started, last - resident


async def _ready(ours: Client, feed: Feed, vocabulary: Tokenizer) -> list[Row]:
    """A candidate answered from the ready position, against the same question computed."""
    session = await ours.create(type="ohlcv", pre_decode=True)
    await ours.read(session, [candle.entry for candle in feed.take(_CONTEXT)])
    while not (state := await ours.session(session))["ready"]:
        await asyncio.sleep(0.05)
    path = f"/v1/sessions/{session}/generate"
    question = {"prompt": "Which way next?", "max_tokens": 1, "temperature": 0}
    likely = vocabulary.decode([state["ready_token"]]).strip()
    hits, computed = [], []
    for index in range(_HITS):
        started = time.perf_counter()
        reply = await ours.post(path, question | {"fast_answer": [likely], "gap_threshold": 0})
        hits.append(time.perf_counter() - started)
        if not reply.get("speculative"):
            raise RuntimeError("the ready position should have answered")
        if index % 20 == 0:
            computed.append((await ours.ask(session, "Which way next?")).whole)
    await ours.delete(session)
    return [
        Row(
            measure="answer from the ready position, p50",
            value=percentile(milliseconds(hits), 0.5),
            unit="ms",
            against="computing it",
            baseline=percentile(milliseconds(computed), 0.5),
            ratio=percentile(hits, 0.5) / percentile(computed, 0.5),
        ),
        Row(measure="answer from the ready position, p99", value=percentile(milliseconds(hits), 0.99), unit="ms"),
    ]
