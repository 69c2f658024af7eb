"""The measures of chat: turns of a session against the same conversation sent whole, with prefix caching."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.harness import Bench, candles, median
from bench.measures import Row

_TURNS = 10
_SESSION = "x-layerscale-session-id"


async def ten_turns(bench: Bench, rounds: int = 3) -> list[Row]:
    """Ten turns over about 2,000 tokens, that both sides have in the KV cache before the first."""
    return await _compare(bench, rounds, 0, "ten turns over a 2,000-token prefix", 1.02)


async def ten_turns_with_data(bench: Bench, rounds: int = 1) -> list[Row]:
    """The same with about 500 tokens of data between turns, which the session has read before the turn comes."""
    return await _compare(bench, rounds, 11, "ten turns with 500 tokens of data before each", 0.8)


async def _compare(bench: Bench, rounds: int, lines: int, what: str, target: float) -> list[Row]:
    session_times, whole_times = [], []
    rows = []
    for number in range(rounds):
        start = number * 40_000 + lines * 1000
        session, whole = _SessionSide(bench, start), _WholeSide(bench, start + 20_000)
        await session.begin()
        await whole.begin()
        for turn in range(_TURNS):
            fresh = 46 + turn * lines
            for side in (session, whole) if turn % 2 else (whole, session):
                if lines:
                    await side.push(candles(lines, side.start + fresh))
                await side.turn(f"What was close number {turn}?")
        if any(one >= other for one, other in zip(session.cached, session.cached[1:], strict=False)):
            raise RuntimeError(f"cached_tokens does not grow with every turn: {session.cached}")
        session_times.append(session.seconds)
        whole_times.append(whole.seconds)
        rows.append(Row(f"  round {number + 1}: cached tokens of the last turn", session.cached[-1], "tokens"))
        await bench.client.delete(f"/v1/sessions/{session.id}")
    ratios = [one / other for one, other in zip(session_times, whole_times, strict=True)]
    middle = sorted(range(rounds), key=lambda index: ratios[index])[rounds // 2]
    return [
        Row(f"{what}, in a session / sent whole", session_times[middle], "s", whole_times[middle], target),
        Row("  cached tokens of the last prompt, in a session / sent whole", session.cached[-1], "", whole.cached[-1]),
    ]


class _Side:
    """One way to hold the conversation. Generated lengths are fixed, so that both compute the same."""

    def __init__(self, bench: Bench, start: int) -> None:
        self.bench = bench
        self.start = start
        self.seconds = 0.0
        self.cached: list[int] = []
        self.messages: list[dict[str, Any]] = []

    async def say(self, content: str, **headers: str) -> None:
        self.messages.append({"role": "user", "content": content})
        body = {"messages": self.messages, "max_tokens": 32, "temperature": 0, "ignore_eos": True}
        started = time.perf_counter()
        reply = await self.bench.post("/v1/chat/completions", body, **headers)
        self.seconds += time.perf_counter() - started
        self.messages.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
        self.cached.append(reply["usage"]["prompt_tokens_details"]["cached_tokens"])


class _SessionSide(_Side):
    id = ""

    async def begin(self) -> None:
        self.id = await self.bench.stream(candles(46, self.start))

    async def push(self, lines: list[str]) -> None:
        await self.bench.read(self.id, lines)

    async def turn(self, question: str) -> None:
        await self.say(question, **{_SESSION: self.id})


class _WholeSide(_Side):
    data = ""

    async def begin(self) -> None:
        self.data = "".join(f"{line}\n" for line in candles(46, self.start))
        body = {"messages": [{"role": "user", "content": self.data}], "max_tokens": 1}
        await self.bench.post("/v1/chat/completions", body)

    async def push(self, lines: list[str]) -> None:
        self.data += "".join(f"{line}\n" for line in lines)

    async def turn(self, question: str) -> None:
        data, self.data = self.data, ""
        await self.say(data + question)


async def turn_beside_warm(bench: Bench, rounds: int = 5) -> list[Row]:
    """The first token of a turn that arrives while a warm turn of about 1,000 tokens is read, against an idle one."""
    idle, beside, ends = [], [], []
    for number in range(rounds):
        session_id = await bench.stream(candles(20, number * 1000))
        idle.append(await _first_token(bench, session_id, "Up or down?"))
        long = "".join(f"{line}\n" for line in candles(23, 50_000 + number * 1000))
        body = {"messages": [{"role": "user", "content": long}]}
        warming = asyncio.create_task(bench.post(f"/v1/sessions/{session_id}/warm", body))
        await asyncio.sleep(1.0)
        if warming.done():
            raise RuntimeError("the warm turn was over before the turn came")
        beside.append(await _first_token(bench, session_id, "Up or down, again?"))
        ends.append((await warming)["finish_reason"])
        await bench.client.delete(f"/v1/sessions/{session_id}")
    if set(ends) != {"cancelled"}:
        raise RuntimeError(f"a turn did not stop the warm turn: {ends}")
    slice_seconds = bench.core.manager.limits.slices.seconds
    return [
        Row(
            "worst first token of a turn while 1,000 tokens are warmed / idle and one slice",
            max(beside) * 1e3,
            "ms",
            (median(idle) + slice_seconds) * 1e3,
        )
    ]


async def _first_token(bench: Bench, session_id: str, question: str) -> float:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 2, "temperature": 0, "stream": True}
    started = time.perf_counter()
    async with bench.client.post("/v1/chat/completions", json=body, headers={_SESSION: session_id}) as response:
        response.raise_for_status()
        async for line in response.content:
            if b'"content":"' in line and b'"content":""' not in line:
                return time.perf_counter() - started
    raise RuntimeError("the reply was empty")


MEASURES = (ten_turns, ten_turns_with_data, turn_beside_warm)
