"""What tests of questions share."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from service.keys import METRICS
from service.metrics import Counters
from tests import apps
from tests.engine.fast import FastEngine

SESSION = "/v1/sessions/s"
GENERATE = f"{SESSION}/generate"
DONE = b"data: [DONE]\n\n"


class SteppedEngine(FastEngine):
    """Generates only as far as it is let: the first step reads the prompt, each further one gives a token."""

    def __init__(self, **facts: int) -> None:
        super().__init__(**facts)
        self._steps = asyncio.Semaphore(0)

    def step(self, count: int) -> None:
        for _ in range(count):
            self._steps.release()

    async def passing(self, gate: asyncio.Event) -> None:
        if gate is self.generate_gate:
            await self._steps.acquire()
        await super().passing(gate)

    def kill(self) -> None:
        super().kill()
        self.step(1000)


def counters(client: apps.Client) -> Counters:
    return client.app[METRICS].counters


def frames(raw: bytes) -> list[Any]:
    """Payloads of a complete stream; each frame must be exactly `data: `, JSON and a blank line."""
    assert raw.endswith(b"\n\n" + DONE)
    payloads = []
    for frame in raw.removesuffix(DONE).split(b"\n\n")[:-1]:
        assert frame.startswith(b"data: {")
        assert b"\n" not in frame
        payloads.append(orjson.loads(frame.removeprefix(b"data: ")))
    return payloads


async def stream(client: apps.Client, **body: Any) -> list[Any]:
    async with client.post(GENERATE, json={**body, "stream": True}) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return frames(await response.read())
