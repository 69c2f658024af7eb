"""A client of the server under test, and of the others where they speak OpenAI's API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from bench.servers import Server
from bench.timed import Arrived, Connection

SESSION_HEADER = "x-layerscale-session-id"


@dataclass(frozen=True, slots=True)
class Answer:
    """A streamed answer.

    Attributes:
        first: seconds until its first token.
        whole: seconds until it was complete.
        prompt: length of its prompt in tokens; 0 if it came from a cache.
        cached: how many of these were not computed, where the server tells.
    """

    first: float
    whole: float
    prompt: int = 0
    cached: int | None = None


class Client:
    """Keep-alive connections. Use as an asynchronous context manager."""

    def __init__(self, server: Server) -> None:
        self.server = server
        # llama.cpp's server ends a connection after a streamed answer without saying so.
        self._keep = server.name != "llama.cpp"
        self._http = aiohttp.ClientSession(
            server.url,
            connector=aiohttp.TCPConnector(force_close=not self._keep),
            json_serialize=lambda body: orjson.dumps(body).decode(),
            timeout=aiohttp.ClientTimeout(600),
        )
        # Those that no answer is coming on.
        self._idle: list[Connection] = []

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._http.close()
        for connection in self._idle:
            await connection.close()

    async def post(self, path: str, body: object, **headers: str) -> dict[str, Any]:
        """POST and decode."""
        return await self._call("POST", path, json=body, headers=headers)

    async def get(self, path: str) -> dict[str, Any]:
        """GET and decode."""
        return await self._call("GET", path)

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        async with self._http.request(method, path, **options) as response:
            body = await response.read()
            if response.status != 200:
                raise RuntimeError(f"{self.server.name}: {method} {path}: {response.status} {body[:500]!r}")
            result: dict[str, Any] = orjson.loads(body)
            return result

    async def headers(self, path: str) -> tuple[bytes, dict[str, str]]:
        """What GET answers, and the headers that the handler set."""
        async with self._http.get(path) as response:
            ours = {name: value for name, value in response.headers.items() if name not in ("Date", "Server")}
            ours.pop("Content-Length", None)
            return await response.read(), ours

    async def tell(self, body: bytes, headers: dict[str, str]) -> None:
        """Tell the bare handler what to answer."""
        async with self._http.post("/", data=body, params=headers) as response:
            response.raise_for_status()

    async def answer(self, path: str, body: dict[str, Any], **headers: str) -> Answer:
        """POST a question whose answer is streamed.

        Raises:
            RuntimeError: it was refused, or the answer is empty.
        """
        connection = self._idle.pop() if self._idle else Connection(self.server.url, keep=self._keep)
        try:
            answer = await connection.post(path, orjson.dumps(body | {"stream": True}), headers)
        finally:
            self._idle.append(connection)
        if answer.status != 200:
            told = b"".join(piece for _, piece in answer.pieces)
            raise RuntimeError(f"{self.server.name}: {path}: {answer.status} {told[:500]!r}")
        first = 0.0
        usage: dict[str, Any] = {}
        for passed, event in _events(answer):
            if not first and _text(event):
                first = passed
            usage = event.get("usage") or usage
        if not first:
            raise RuntimeError(f"{self.server.name}: the answer was empty")
        details = usage.get("prompt_tokens_details") or {}
        return Answer(first, answer.whole, usage.get("prompt_tokens", 0), details.get("cached_tokens"))

    # Sessions

    async def create(self, **options: Any) -> str:
        """A new session's id."""
        session_id: str = (await self.post("/v1/sessions", options))["id"]
        return session_id

    async def delete(self, session_id: str) -> None:
        """Delete a session."""
        await self._call("DELETE", f"/v1/sessions/{session_id}")

    async def session(self, session_id: str) -> dict[str, Any]:
        """The session as it is now."""
        return await self.get(f"/v1/sessions/{session_id}")

    async def push(self, session_id: str, entries: Sequence[Any]) -> int:
        """Push; how many entries the session has been given in all."""
        ack = await self.post(f"/v1/sessions/{session_id}/push", {"data": list(entries)})
        total: int = ack["total_pushed"]
        return total

    async def read(self, session_id: str, entries: Sequence[Any]) -> None:
        """Push, and wait until it is resident."""
        total = await self.push(session_id, entries)
        await self.get(f"/v1/sessions/{session_id}/flash?after={total}")

    async def settle(self, session_id: str) -> None:
        """Wait until every Flash Query has a fresh answer."""
        while not all(query["fresh"] for query in (await self.get(f"/v1/sessions/{session_id}/flash?wait=60"))["data"]):
            pass

    async def ask(self, session_id: str, question: str, max_tokens: int = 1, **options: Any) -> Answer:
        """Ask over the stream, greedily, for exactly that many tokens."""
        body = {"prompt": question, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, **options}
        return await self.answer(f"/v1/sessions/{session_id}/generate", body)

    async def events(self, path: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Server-sent events, as names and data, for as long as anybody asks for the next."""
        async with self._http.get(path, timeout=aiohttp.ClientTimeout(None)) as response:
            name = ""
            async for line in response.content:
                if line.startswith(b"event:"):
                    name = line[6:].strip().decode()
                elif line.startswith(b"data:"):
                    yield name, orjson.loads(line[5:])


def _events(answer: Arrived) -> Iterator[tuple[float, dict[str, Any]]]:
    """What is in a stream of unnamed events, each with the time at which all of it was there."""
    rest = b""
    for passed, piece in answer.pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield passed, orjson.loads(line[6:])


def _text(event: dict[str, Any]) -> str | None:
    """What an event adds to the answer: of ours, or of OpenAI's chat completions."""
    choices = event.get("choices")
    text: str | None = choices[0]["delta"].get("content") if choices else event.get("text")
    return text
