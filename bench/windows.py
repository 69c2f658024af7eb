"""Answers before the question, and questions while a window moves."""

from __future__ import annotations

import asyncio
import time

from bench.harness import Bench, candles, median, percentile
from bench.measures import Row


async def ready(bench: Bench, rounds: int = 300) -> list[Row]:
    """A candidate answered from the ready position, against the same question computed."""
    session_id = await bench.stream(candles(40), pre_decode=True)
    while not (state := await bench.get(f"/v1/sessions/{session_id}"))["ready"]:
        await asyncio.sleep(0.05)
    manager = bench.core.manager
    likely = manager.engine.tokenizer.token_bytes(state["ready_token"]).decode(errors="replace").strip()
    question = {"prompt": "Which way next?", "max_tokens": 1, "temperature": 0}
    fast = question | {"fast_answer": [likely], "gap_threshold": 0}
    hits, computed = [], []
    for index in range(rounds):
        started = time.perf_counter()
        reply = await bench.post(f"/v1/sessions/{session_id}/generate", fast)
        hits.append(time.perf_counter() - started)
        if not reply.get("speculative"):
            raise RuntimeError("a hit was expected")
        if index % 30 == 0:
            started = time.perf_counter()
            await bench.post(f"/v1/sessions/{session_id}/generate", question)
            computed.append(time.perf_counter() - started)
    return [
        Row("ready position, median / computing it", median(hits) * 1e3, "ms", median(computed) * 1e3, 0.05),
        Row("ready position, median / 2 ms", median(hits) * 1e3, "ms", 2.0, 1.0),
        Row("ready position, 99th percentile", percentile(hits, 0.99) * 1e3, "ms"),
    ]


async def window(bench: Bench, entries: int = 240) -> list[Row]:
    """Questions over a stream in a window of 2,048 tokens, pushed without a pause: while it moves, and between."""
    session_id = await bench.stream(candles(1), window=2048)
    manager = bench.core.manager
    session = manager.get(session_id)
    before = await bench.get("/health")
    longest, moving, between = 0, [], []

    async def produce() -> None:
        for start in range(1, entries, 4):
            await bench.post(f"/v1/sessions/{session_id}/push", {"data": candles(4, start=start)})
            while session.queue.tokens > 200:
                await asyncio.sleep(0.01)

    producing = asyncio.create_task(produce())
    number = 0
    while not producing.done():
        moves = manager.moving(session)
        number += 1
        seconds = await bench.first_token(session_id, f"What was close number {number}?")
        longest = max(longest, session.tokens)
        if moves and manager.moving(session):
            moving.append(seconds)
        elif not moves and session.tokens > 1024:
            between.append(seconds)
        await asyncio.sleep(0.5)
    await producing
    after = await bench.get("/health")
    read, again = (after[name] - before[name] for name in ("session_ingested_tokens", "session_window_tokens"))
    return [
        Row("first token while a window moves / between", median(moving) * 1e3, "ms", median(between) * 1e3, 3.0),
        Row("tokens read in all / pushed", float(read + again), "tok", float(read), 2.2),
        Row("longest a window of 2,048 tokens was / with its slack", float(longest), "tok", 2048.0 + 128, 1.0),
    ]


MEASURES = (ready, window)
