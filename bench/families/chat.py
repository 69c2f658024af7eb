"""Chat: turns of a session against the same conversation sent whole, with prefix caching; and beside warm turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from abc import ABC, abstractmethod
from typing import Any

from bench.askahead import SESSION_HEADER, Client
from bench.candles import Candle, Feed
from bench.rows import Result, Row, at_most, compared, milliseconds
from bench.servers import Fleet

_TURNS = 10
_CONTEXT = 45
"""Candles: 2,000 tokens."""
_SLICE_SECONDS = 0.3
"""The server's default of how long it reads at a stretch."""


async def measure(fleet: Fleet, full: bool) -> Result:
    """Ten turns as they are, ten with 500 tokens of data before each, and one while a warm turn is read."""
    await fleet.keep("askahead")
    feed = Feed()
    async with Client(await fleet.get("askahead")) as ours:
        return Result(
            [
                await _compare(ours, feed, 5 if full else 1, 0, "ten turns over 2,000 tokens", 1.02),
                await _compare(ours, feed, 2 if full else 1, 11, "ten turns with 500 tokens of data before each", 0.8),
                await _beside_warm(ours, feed, 5 if full else 2),
            ],
            rounds=5 if full else 1,
        )


async def _compare(ours: Client, feed: Feed, rounds: int, fresh: int, what: str, target: float) -> Row:
    """Both sides have the first candles in the KV cache before the first turn; turns are interleaved."""
    times: dict[type[_Side], list[float]] = {_Session: [], _Whole: []}
    for _ in range(rounds):
        sides = (_Session(ours), _Whole(ours))
        for side in sides:
            await side.begin(feed.take(_CONTEXT))
        for turn in range(_TURNS):
            for side in sides if turn % 2 else reversed(sides):
                if fresh:
                    await side.push(feed.take(fresh))
                await side.say(f"What was close number {turn}?")
        for side in sides:
            times[type(side)].append(side.seconds)
            await side.end()
    return compared(what, times[_Session], times[_Whole], "s", "the conversation sent whole", at_most(target))


class _Side(ABC):
    """One way to hold the conversation. Generated lengths are fixed, so that both compute the same."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.seconds = 0.0
        self._messages: list[dict[str, Any]] = []

    @abstractmethod
    async def begin(self, candles: list[Candle]) -> None:
        """Have these in the KV cache."""

    @abstractmethod
    async def push(self, candles: list[Candle]) -> None:
        """Give the conversation more data."""

    async def say(self, content: str, **headers: str) -> None:
        """One turn, timed."""
        self._messages.append({"role": "user", "content": content})
        body = {"messages": self._messages, "max_tokens": 32, "temperature": 0, "ignore_eos": True}
        started = time.perf_counter()
        reply = await self._client.post("/v1/chat/completions", body, **headers)
        self.seconds += time.perf_counter() - started
        self._messages.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})

    @abstractmethod
    async def end(self) -> None:
        """Let go of what is held."""


class _Session(_Side):
    _id = ""

    async def begin(self, candles: list[Candle]) -> None:
        self._id = await self._client.create()
        await self.push(candles)

    async def push(self, candles: list[Candle]) -> None:
        await self._client.read(self._id, [candle.line for candle in candles])

    async def say(self, content: str, **headers: str) -> None:
        await super().say(content, **headers, **{SESSION_HEADER: self._id})

    async def end(self) -> None:
        await self._client.delete(self._id)


class _Whole(_Side):
    _data = ""

    async def begin(self, candles: list[Candle]) -> None:
        await self.push(candles)
        await self._client.post(
            "/v1/chat/completions", {"messages": [{"role": "user", "content": self._data}], "max_tokens": 1}
        )

    async def push(self, candles: list[Candle]) -> None:
        self._data += "".join(f"{candle.line}\n" for candle in candles)

    async def say(self, content: str, **headers: str) -> None:
        data, self._data = self._data, ""
        await super().say(data + content, **headers)

    async def end(self) -> None:
        self._messages.clear()


async def _beside_warm(ours: Client, feed: Feed, rounds: int) -> Row:
    """The first token of a turn that comes while a warm turn of 1,000 tokens is read."""
    idle, beside = [], []
    for _ in range(rounds):
        session = await ours.create()
        await ours.read(session, [candle.line for candle in feed.take(20)])
        idle.append(await _turn(ours, session, "Up or down?"))
        long = "".join(f"{candle.line}\n" for candle in feed.take(23))
        body = {"messages": [{"role": "user", "content": long}]}
        warming = asyncio.create_task(ours.post(f"/v1/sessions/{session}/warm", body))
        await asyncio.sleep(0.15)
        if warming.done():
            raise RuntimeError("the warm turn was over before the turn came")
        beside.append(await _turn(ours, session, "Up or down, again?"))
        if (await warming)["finish_reason"] != "cancelled":
            raise RuntimeError("the turn did not stop the warm turn")
        await ours.delete(session)
    wait = statistics.median(milliseconds(idle)) + _SLICE_SECONDS * 1e3
    return Row(
        measure="worst first token of a turn while 1,000 tokens are warmed",
        value=max(milliseconds(beside)),
        unit="ms",
        against="idle, and one slice of reading",
        baseline=wait,
        ratio=max(milliseconds(beside)) / wait,
    )


async def _turn(ours: Client, session: str, question: str) -> float:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 2, "temperature": 0}
    return (await ours.answer("/v1/chat/completions", body, **{SESSION_HEADER: session})).first
