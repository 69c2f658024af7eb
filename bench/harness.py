"""A real server on a real engine, in this process, reached over a loopback socket.

Sharing the process with the client makes the server look slower than it is, never faster; and it lets a measure call
the very engine behind the server, so that a question and its floor are interleaved over the same held prefix.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from service.app import create_app
from service.core import CORE, Core
from service.settings import Settings, default_data_dir


@dataclass
class Bench:
    """What a measure works with."""

    client: aiohttp.ClientSession
    core: Core

    async def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        """POST and decode."""
        async with self.client.post(path, json=body, headers=headers) as response:
            result: dict[str, Any] = orjson.loads(await response.read())
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {result}")
            return result

    async def get(self, path: str) -> dict[str, Any]:
        """GET and decode."""
        async with self.client.get(path) as response:
            result: dict[str, Any] = orjson.loads(await response.read())
            return result

    async def stream(self, lines: Sequence[str], **options: Any) -> str:
        """A new session that has read ``lines``; returns its id."""
        session_id: str = (await self.post("/v1/sessions", options))["id"]
        await self.read(session_id, lines)
        return session_id

    async def read(self, session_id: str, lines: Sequence[str]) -> None:
        """Push and wait until resident."""
        ack = await self.post(f"/v1/sessions/{session_id}/push", {"data": list(lines)})
        await self.core.manager.get(session_id).resident(ack["total_pushed"], timeout=600)

    async def first_token(self, session_id: str, question: str, max_tokens: int = 4) -> float:
        """Seconds until the first token of a streamed answer is here."""
        body = {"prompt": question, "max_tokens": max_tokens, "temperature": 0, "stream": True}
        started = time.perf_counter()
        first = None
        async with self.client.post(f"/v1/sessions/{session_id}/generate", json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if first is None and line.startswith(b"data: "):
                    first = time.perf_counter() - started
        if first is None:
            raise RuntimeError("the answer was empty")
        return first


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Bench]:
    """Load the default model and serve it."""
    with tempfile.TemporaryDirectory() as scratch:
        # Models are converted once and kept; everything else of this run is thrown away.
        models = default_data_dir() / "models"
        models.mkdir(parents=True, exist_ok=True)
        (Path(scratch) / "models").symlink_to(models)
        failed = asyncio.Event()
        app = create_app(Settings(data_dir=Path(scratch), port=0, **options), failed=failed.set)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        try:
            async with aiohttp.ClientSession(f"http://{host}:{port}") as client:
                while not app[CORE].up:
                    if failed.is_set():
                        raise RuntimeError("the engine could not be loaded; the reason is above")
                    await asyncio.sleep(0.2)
                yield Bench(client, app[CORE])
        finally:
            await runner.cleanup()


def candles(count: int, start: int = 0) -> list[str]:
    """``count`` lines of market data, about 25 tokens each."""
    lines = []
    for index in range(start, start + count):
        price = 100 + index % 17 - index % 5
        lines.append(f"{index:05d} o={price}.10 h={price + 2}.40 l={price - 1}.20 c={price + 1}.05 v={1000 + index}")
    return lines


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``values`` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)
