"""A timed answer is taken down piece by piece, over one connection for as long as the server keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from bench.timed import Connection


class Answering:
    """Answers with the body, letter by letter.

    Attributes:
        connections: that requests have come on.
        go: set for each letter but the first, once it may leave.
    """

    def __init__(self) -> None:
        self.connections: set[asyncio.BaseTransport | None] = set()
        self.go = asyncio.Semaphore(0)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.connections.add(request.transport)
        response = web.StreamResponse(headers={"X-Told": request.headers.get("X-Told", "")})
        await response.prepare(request)
        for letter in await request.read():
            await response.write(bytes([letter]))
            await self.go.acquire()
        return response

    async def whole(self, request: web.Request) -> web.Response:
        self.connections.add(request.transport)
        response = web.Response(status=418, body=await request.read())
        if request.query_string == "last":
            response.force_close()
        return response

    async def broken(self, request: web.Request) -> web.StreamResponse:
        response = await self.answer(request)
        assert request.transport is not None
        request.transport.abort()
        return response


@pytest_asyncio.fixture
async def answering() -> AsyncIterator[tuple[Answering, Connection]]:
    there, app = Answering(), web.Application()
    app.add_routes([web.post("/letters", there.answer), web.post("/", there.whole), web.post("/broken", there.broken)])
    async with TestServer(app) as server:
        connection = Connection(f"http://{server.host}:{server.port}")
        yield there, connection
        await connection.close()


async def test_pieces_have_the_times_of_their_arrival(answering: tuple[Answering, Connection]) -> None:
    there, connection = answering
    asked = asyncio.create_task(connection.post("/letters", b"abc", {}))
    for _ in b"abc":
        await asyncio.sleep(0.02)
        there.go.release()
    arrived = await asked
    assert arrived.status == 200
    assert [piece for _, piece in arrived.pieces] == [b"a", b"b", b"c"]
    first, second, third = (passed for passed, _ in arrived.pieces)
    assert 0 < first < second < third < arrived.whole


async def test_a_connection_is_kept_until_the_server_ends_it(answering: tuple[Answering, Connection]) -> None:
    there, connection = answering
    for path, connections in (("/", 1), ("/?last", 1), ("/", 2), ("/", 2)):
        arrived = await connection.post(path, b"teapot", {})
        assert (arrived.status, b"".join(piece for _, piece in arrived.pieces)) == (418, b"teapot")
        assert len(there.connections) == connections


async def test_half_an_answer_is_none(answering: tuple[Answering, Connection]) -> None:
    there, connection = answering
    there.go.release()
    with pytest.raises((RuntimeError, ConnectionError)):
        await connection.post("/broken", b"a", {})
    assert (await connection.post("/", b"again", {})).status == 418
