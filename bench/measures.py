"""The measures. Each returns rows of the report; every claim is a ratio from interleaved rounds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from bench.harness import Bench, candles, median, percentile


@dataclass(frozen=True)
class Row:
    """One line of the report.

    Attributes:
        measure: what was measured.
        value: in ``unit``.
        baseline: the same for what it is compared with, None where there is none.
        target: largest ratio of value to baseline that is acceptable.
    """

    measure: str
    value: float
    unit: str
    baseline: float | None = None
    target: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.baseline is None else self.value / self.baseline

    @property
    def ok(self) -> bool | None:
        return None if self.target is None or self.ratio is None else self.ratio <= self.target


async def resident_question(bench: Bench, rounds: int = 21) -> list[Row]:
    """A question over a resident stream of about 2,000 tokens, against AsyncLLM over the same held prefix."""
    session_id = await bench.stream(candles(46))
    session = bench.core.manager.get(session_id)
    questions = bench.core.manager.questions
    ours, floor = [], []
    for index in range(rounds):
        ours.append(await bench.first_token(session_id, f"What was close number {index * 2 + 10}?"))
        question = questions.encode(f"What was close number {index * 2 + 11}?")
        tokens = (await questions.prompt(session, question)).tokens
        floor.append(await _floor(bench, list(tokens)))
    reply = await bench.post(
        f"/v1/sessions/{session_id}/generate", {"prompt": "What was the lowest low?", "max_tokens": 1}
    )
    usage = reply["usage"]
    share = usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"]
    return [
        Row(
            f"first token of a question over {session.tokens} resident tokens / AsyncLLM over the same",
            median(ours) * 1e3,
            "ms",
            median(floor) * 1e3,
            1.15,
        ),
        Row("prompt tokens not cached in that question / 5 % of them", 1 - share, "share", 0.05, 1.0),
    ]


async def _floor(bench: Bench, tokens: list[int]) -> float:
    """vLLM itself, nothing of ours around it. Seconds to the first token."""
    from vllm import SamplingParams
    from vllm.inputs import tokens_input
    from vllm.sampling_params import RequestOutputKind

    llm: Any = bench.core.manager.engine._llm  # type: ignore[attr-defined]
    params = SamplingParams(max_tokens=4, temperature=0, output_kind=RequestOutputKind.DELTA)
    started = time.perf_counter()
    first = 0.0
    async for _ in llm.generate(tokens_input(tokens), params, f"floor-{started}"):
        first = first or time.perf_counter() - started
    return first


async def question_beside_ingest(bench: Bench, rounds: int = 3) -> list[Row]:
    """Questions on one stream, idle and while about 2,500 tokens are read into another; the worst of all rounds."""
    asked = await bench.stream(candles(20))
    idle, beside = [], []
    tokens = seconds = 0.0
    for index in range(rounds):
        idle += [await bench.first_token(asked, f"What was close number {index * 10 + number}?") for number in range(7)]
        fed = await bench.stream(candles(1))
        session = bench.core.manager.get(fed)
        before, started = session.tokens, time.perf_counter()
        reading = asyncio.create_task(bench.read(fed, candles(58, start=1)))
        number = 0
        while not reading.done():
            beside.append(await bench.first_token(asked, f"What was high number {index * 100 + number}?"))
            number += 1
        await reading
        tokens, seconds = tokens + session.tokens - before, seconds + time.perf_counter() - started
        await bench.client.delete(f"/v1/sessions/{fed}")
    return [
        Row(
            f"worst first token of {len(beside)} questions while {tokens / rounds:.0f} tokens are read / idle",
            max(beside) * 1e3,
            "ms",
            median(idle) * 1e3,
            8.0,
        ),
        Row("median first token of those / idle", median(beside) * 1e3, "ms", median(idle) * 1e3),
        Row("tokens read per second beside them", tokens / seconds, "tok/s"),
    ]


async def flash(bench: Bench, rounds: int = 7) -> list[Row]:
    """From push to the last answer in the cache, and a hit against computing the same answer."""
    rows = []
    for count in (1, 5, 20):
        queries = [{"query": f"Is close number {number} high?", "max_tokens": 1} for number in range(count)]
        session_id = await bench.stream(candles(40), flash=queries)
        session = bench.core.manager.get(session_id)
        times = []
        for index in range(rounds):
            started = time.perf_counter()
            await bench.read(session_id, candles(1, start=100 + index))
            while True:
                state = await bench.get(f"/v1/sessions/{session_id}/flash?wait=30")
                if all(query["fresh"] for query in state["data"]):
                    break
            times.append(time.perf_counter() - started)
        rows.append(Row(f"push to {count} fresh answers, {session.tokens} tokens", median(times) * 1e3, "ms"))
    hit = {"prompt": queries[0]["query"], "max_tokens": 1, "temperature": 0}
    hits = []
    for _ in range(500):
        started = time.perf_counter()
        reply = await bench.post(f"/v1/sessions/{session_id}/generate", hit)
        hits.append(time.perf_counter() - started)
        if not reply.get("flash"):
            raise RuntimeError("a hit was expected")
    computed = []
    for index in range(rounds):
        started = time.perf_counter()
        await bench.post(f"/v1/sessions/{session_id}/generate", hit | {"prompt": f"Is close number {70 + index} high?"})
        computed.append(time.perf_counter() - started)
    rows.append(Row("flash hit, median / computing it", median(hits) * 1e3, "ms", median(computed) * 1e3))
    rows.append(Row("flash hit, 99th percentile", percentile(hits, 0.99) * 1e3, "ms"))
    return rows


MEASURES = (resident_question, question_beside_ingest, flash)
