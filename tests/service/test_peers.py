"""Owners of sessions that have just died: whoever wants something of theirs is told so, and to try again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from redis.asyncio import Redis

from streams.leases import Leases, Replica
from streams.log import Options
from streams.window import NO_WINDOW
from tests import apps
from tests.apps import call
from tests.service.delivery.messages import receive
from tests.streams.kit import SECONDS

SESSION = "/v1/sessions/s"
HALF = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n{"id": \r\n'
LAST_WORDS = {
    "hangs up": b"",
    "dies in a header": b"HTTP/1.1 200 OK\r\nContent-",
    "raves": b"I am not what you think\r\n\r\n",
}


@asynccontextmanager
async def owner(redis: Redis, last_words: bytes | None) -> AsyncIterator[None]:
    """A server that owns the session, and dies of a request; of its own accord, before, where it says nothing."""

    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(last_words or b"")
        await writer.drain()
        writer.transport.abort() if not last_words else writer.close()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        options = Options(time.time(), "fast", None, None, NO_WINDOW, False, frozenset())
        leases = Leases(redis, Replica("another", f"http://127.0.0.1:{port}"), SECONDS)
        await leases.create("s", {"options": options.pack()})
        if last_words is None:
            server.close()
            await server.wait_closed()
        yield


@pytest.mark.parametrize("size", [1, 900_000])
@pytest.mark.parametrize("last_words", [None, *LAST_WORDS.values()], ids=["is gone", *LAST_WORDS])
async def test_what_is_passed_on_to_an_owner_that_dies_is_refused(
    client: apps.Client, redis: Redis, last_words: bytes | None, size: int
) -> None:
    async with owner(redis, last_words):
        async with client.post(f"{SESSION}/push", json={"data": "x" * size}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["error"]["code"] == "owner_unavailable"
        for method, path, body in (("POST", "generate", {"prompt": "Why?"}), ("DELETE", "", None)):
            status, refused = await call(client, method, f"{SESSION}/{path}".rstrip("/"), body)
            assert (status, refused["error"]["code"]) == (503, "owner_unavailable")


@pytest.mark.parametrize(
    "last_words", [None, *LAST_WORDS.values(), HALF], ids=["is gone", *LAST_WORDS, "dies in a body"]
)
async def test_what_a_socket_pushes_to_an_owner_that_dies_is_refused(
    client: apps.Client, redis: Redis, last_words: bytes | None
) -> None:
    async with owner(redis, last_words), client.ws_connect(f"{SESSION}/ws") as socket:
        assert (await receive(socket))["type"] == "connected"
        await socket.send_json({"type": "push", "data": "x"})
        refused = await receive(socket)
        assert (refused["type"], refused["data"]["code"]) == ("error", 503)
        assert "try again" in refused["data"]["message"]


async def test_the_last_answer_of_an_owner_arrives_as_it_was(client: apps.Client, redis: Redis) -> None:
    last_words = b"HTTP/1.1 418 Teapot\r\nx-request-id: theirs\r\nx-said: so\r\nContent-Length: 4\r\n\r\nwhat"
    async with owner(redis, last_words), client.post(f"{SESSION}/generate", json={"prompt": "Why?"}) as response:
        assert (response.status, response.reason, response.headers["x-said"]) == (418, "Teapot", "so")
        assert await response.text() == "what"


async def test_an_answer_that_an_owner_began_breaks_off_with_it(client: apps.Client, redis: Redis) -> None:
    async with owner(redis, HALF), client.post(f"{SESSION}/generate", json={"prompt": "Why?"}) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
