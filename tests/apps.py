"""The whole application over the in-process engine and a real Valkey, for tests that speak HTTP to it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from service.app import create_app
from service.core import CORE, Core
from service.lane import open_lane
from service.settings import Settings
from tests.engine.fast import FastEngine

Client = TestClient[web.Request, web.Application]


@asynccontextmanager
async def serving(
    redis: Redis | None, data_dir: Path, engine: FastEngine | None = None, **settings: Any
) -> AsyncIterator[Client]:
    """A client of a ready application; without ``redis`` on what its settings say."""
    app = create_app(Settings(data_dir=data_dir, **settings), engine=engine or FastEngine(), redis=redis)
    server = TestServer(app, handler_cancellation=True)
    async with TestClient(server) as client:
        assert isinstance(server.runner, web.AppRunner)
        open_lane(server.runner)
        async with asyncio.timeout(10):
            while not app[CORE].up:
                await asyncio.sleep(0)
        yield client


def core(client: Client) -> Core:
    """The parts behind the application."""
    return client.app[CORE]


async def settled(client: Client, session_id: str) -> None:
    """Wait until everything pushed is resident."""
    session = core(client).manager.get(session_id)
    await session.resident(session.queue.total_pushed, 10)


async def call(client: Client, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
    """Status and decoded JSON of a request."""
    async with client.request(method, path, json=body, **options) as response:
        return response.status, await response.json()


async def ok(client: Client, method: str, path: str, body: Any = None, **options: Any) -> Any:
    """Decoded JSON of a request that must succeed."""
    status, reply = await call(client, method, path, body, **options)
    assert status == 200, reply
    return reply


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something to be so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def answered(client: Client, session_id: str) -> list[dict[str, Any]]:
    """The Flash Queries of a session, once every answer is fresh."""
    queries: list[dict[str, Any]] = (await ok(client, "GET", f"/v1/sessions/{session_id}/flash?wait=10"))["data"]
    assert all(query["fresh"] for query in queries)
    return queries


def server_side(client: Client, peer: socket.socket) -> asyncio.Transport | None:
    """The server's end of a connection, while it is open."""
    assert client.server.runner is not None
    assert client.server.runner.server is not None
    for handler in client.server.runner.server.connections:
        transport = handler.transport
        if transport is not None and transport.get_extra_info("peername") == peer.getsockname():
            return transport
    return None
