"""The sides that answer the same question over the same candles, each in the way its user would ask it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from bench.askahead import Answer, Client
from bench.candles import QUESTION, Candle


class Side(ABC):
    """One stream on one server. A tick may take what time it wants; what is compared is the question after it.

    Attributes:
        asked_once: an answer takes so long that only the last tick of a visit is followed by a question.
    """

    asked_once = False

    def __init__(self, client: Client) -> None:
        self._client = client

    @abstractmethod
    async def begin(self, candles: Sequence[Candle]) -> None:
        """A new stream that has these."""

    @abstractmethod
    async def tick(self, candle: Candle) -> None:
        """One more."""

    @abstractmethod
    async def ask(self, max_tokens: int) -> Answer:
        """Ask over all of them."""

    @abstractmethod
    async def end(self) -> None:
        """Let the stream go."""


class Resident(Side):
    """Askahead: a tick is read when it arrives, so a question finds it resident."""

    _id = ""

    async def begin(self, candles: Sequence[Candle]) -> None:
        self._id = await self._client.create(type="ohlcv")
        await self._client.read(self._id, [candle.entry for candle in candles])

    async def tick(self, candle: Candle) -> None:
        await self._client.read(self._id, [candle.entry])

    async def ask(self, max_tokens: int) -> Answer:
        return await self._client.ask(self._id, QUESTION, max_tokens)

    async def end(self) -> None:
        await self._client.delete(self._id)


class AtOnce(Resident):
    """Askahead, asked in the same moment in which the tick comes: the time includes its push and its reading."""

    _candle: Candle

    async def tick(self, candle: Candle) -> None:
        self._candle = candle

    async def ask(self, max_tokens: int) -> Answer:
        started = time.perf_counter()
        total = await self._client.push(self._id, [self._candle.entry])
        pushed = time.perf_counter() - started
        answer = await self._client.ask(self._id, QUESTION, max_tokens, after=total)
        return replace(answer, first=pushed + answer.first, whole=pushed + answer.whole)


class Flash(Resident):
    """Askahead, the question being a Flash Query: its answer is there when it is asked."""

    async def begin(self, candles: Sequence[Candle]) -> None:
        await super().begin(candles)
        await self._client.post(f"/v1/sessions/{self._id}/flash", {"query": QUESTION, "max_tokens": 1})

    async def tick(self, candle: Candle) -> None:
        await super().tick(candle)
        await self._client.settle(self._id)

    async def ask(self, max_tokens: int) -> Answer:
        answer = await self._client.ask(self._id, QUESTION, max_tokens)
        if answer.prompt:
            raise RuntimeError("the answer was computed, and should have been there")
        return answer


class Floor(Side):
    """``AsyncLLM`` itself, over a prefix that a held request keeps."""

    _stream = "called"

    async def begin(self, candles: Sequence[Candle]) -> None:
        await self._client.post(f"/{self._stream}/begin", {"lines": [candle.line for candle in candles]})

    async def tick(self, candle: Candle) -> None:
        await self._client.post(f"/{self._stream}/tick", {"lines": [candle.line]})

    async def ask(self, max_tokens: int) -> Answer:
        body = {"question": QUESTION, "max_tokens": max_tokens}
        return Answer(**await self._client.post(f"/{self._stream}/ask", body))

    async def end(self) -> None:
        await self._client.post(f"/{self._stream}/end", {})


class Served(Floor):
    """The same behind an HTTP server that does nothing else: what any server with that client costs at least."""

    _stream = "served"

    async def ask(self, max_tokens: int) -> Answer:
        return await self._client.answer(f"/{self._stream}/served", {"prompt": QUESTION, "max_tokens": max_tokens})


class Resent(Side):
    """A server of OpenAI's API: the whole prompt is sent again, the tick at its end, and reading it is its affair."""

    _data = ""

    async def begin(self, candles: Sequence[Candle]) -> None:
        self._data = "".join(f"{candle.line}\n" for candle in candles)
        await self.ask(1)

    async def tick(self, candle: Candle) -> None:
        self._data += f"{candle.line}\n"

    async def ask(self, max_tokens: int) -> Answer:
        body = {
            "model": "model",
            "messages": [{"role": "user", "content": self._data + QUESTION}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }
        return await self._client.answer("/v1/chat/completions", body)

    async def end(self) -> None:
        self._data = ""


class Uncached(Resent):
    """The same where nothing is kept between prompts."""

    asked_once = True

    async def begin(self, candles: Sequence[Candle]) -> None:
        self._data = "".join(f"{candle.line}\n" for candle in candles)
