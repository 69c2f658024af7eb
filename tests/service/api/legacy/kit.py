"""What tests of the old generation's surface share."""

from __future__ import annotations

import asyncio
from typing import Any

from tests import apps
from tests.apps import core, ok, settled

CANDLE = {"o": 185.5, "h": 186.2, "l": 185.1, "c": 185.8, "v": 12500}
READING = {"sid": "temp-01", "val": 72.5, "lo": 60.0, "hi": 85.0}


async def init(client: apps.Client, type: str = "iot", **body: Any) -> str:
    """The path of a new old-style session."""
    made = await ok(client, "POST", "/v1/sessions/init", {"type": type, **body})
    return f"/v1/sessions/{made['session_id']}"


async def push(client: apps.Client, path: str, *entries: dict[str, Any]) -> dict[str, Any]:
    """Push, and wait until it is read."""
    ack: dict[str, Any] = await ok(client, "POST", f"{path}/stream/push", {"data": entries or [READING]})
    await settled(client, id_of(path))
    return ack


async def answered(client: apps.Client, path: str) -> list[dict[str, Any]]:
    """The Flash Queries, once each has an answer of the present version."""
    flash, session = core(client).flash, core(client).manager.get(id_of(path))
    async with asyncio.timeout(10):
        for query in flash.registry(session):
            while flash.match(session, query.text) is None:
                await asyncio.sleep(0.001)
    queries: list[dict[str, Any]] = (await ok(client, "GET", f"{path}/flash"))["flash_queries"]
    return queries


def id_of(path: str) -> str:
    return path.removeprefix("/v1/sessions/")
