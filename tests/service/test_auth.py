from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from tests.service.edge import edge_app, ok, serving

KEY = "a-key-of-ours"
ROUTES = [
    web.get("/health", ok),
    web.get("/healthz", ok),
    web.get("/livez", ok),
    web.get("/metrics", ok),
    web.post("/v1/messages", ok),
]


async def test_without_a_key_everybody_may() -> None:
    async with serving(edge_app(ROUTES)) as client:
        assert (await client.get("/metrics")).status == 200
        assert (await client.get("/metrics", headers={"x-api-key": "whatever"})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {KEY}"},
        {"x-api-key": KEY},
        {"Authorization": "Bearer wrong", "x-api-key": KEY},
    ],
    ids=str,
)
async def test_the_key_opens(headers: dict[str, str]) -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        assert (await client.get("/metrics", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"x-api-key": ""},
        {"x-api-key": "schlüssel"},
        {"Authorization": "Bearer schlüssel"},
    ],
    ids=str,
)
async def test_anything_else_does_not(headers: dict[str, str]) -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        response = await client.get("/metrics", headers=headers)
        assert response.status == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        error = (await response.json())["error"]
        assert error["type"] == "authentication_error"
        assert KEY not in error["message"]


async def test_health_is_open() -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        for path in ("/health", "/healthz", "/livez"):
            assert (await client.get(path)).status == 200


async def test_unknown_paths_are_not_told_apart_from_known_ones() -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        assert (await client.get("/nowhere")).status == 401
        assert (await client.get("/health/../metrics")).status == 401
        assert (await client.options("/metrics")).status == 401


async def test_messages_refuse_in_their_own_envelope() -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        body = await (await client.post("/v1/messages", json={})).json()
        assert body["type"] == "error"
        assert body["error"]["type"] == "authentication_error"
        assert body["request_id"]


async def test_bytes_that_are_no_text_are_refused_and_break_nothing() -> None:
    async with serving(edge_app(ROUTES, api_key=KEY)) as client:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nx-api-key: \xff\xfe\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401 ")
        writer.close()
        await writer.wait_closed()


async def test_sockets_are_refused_as_plain_http() -> None:
    async def socket(request: web.Request) -> web.WebSocketResponse:
        raise AssertionError("must not be reached")

    async with serving(edge_app([web.get("/ws", socket)], api_key=KEY)) as client:
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        response = await client.get("/ws", headers=headers)
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"
