"""How often and how much at once a client may ask, over HTTP and on sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from service.keys import CLIENTS
from tests import apps
from tests.apps import call, ok, until
from tests.engine.fast import FastEngine
from tests.service.access.tenants import ACME, MAIN, RIVAL, entry, serving

EVENTS = "/v1/sessions/acme-1/events"
ASK = ("POST", "/v1/sessions/acme-1/generate", {"prompt": "What?", "max_tokens": 2})


@asynccontextmanager
async def stuck(client: apps.Client, engine: FastEngine) -> AsyncIterator[None]:
    """Inside, a question of acme's is being answered, which does not end."""
    engine.generate_gate.clear()
    asking = asyncio.create_task(call(client, *ASK, headers=ACME))
    await until(lambda: apps.core(client).manager.questions.running)
    yield
    engine.generate_gate.set()
    assert (await asking)[0] == 200


async def test_who_asks_too_often_is_told_when_to_come_back(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path, "requests_per_second = 0.01", "burst = 2") as client:
        for _ in range(2):
            await ok(client, "GET", "/v1/models", headers=ACME)
        async with client.get("/v1/models", headers=ACME) as response:
            assert response.status == 429
            assert 1 <= int(response.headers["Retry-After"]) <= 100
            assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        async with client.post("/v1/messages", json={}, headers=ACME) as response:
            assert response.status == 429
            assert (await response.json())["error"]["type"] == "rate_limit_error"
        for _ in range(5):
            assert (await client.get("/health", headers=ACME)).status == 200
            await ok(client, "GET", "/v1/models", headers=MAIN)
        await ok(client, "GET", "/v1/models", headers=RIVAL)


async def test_without_keys_an_address_is_limited(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, rate_limit=0.01, rate_burst=1) as client:
        await ok(client, "GET", "/v1/models")
        assert (await call(client, "GET", "/v1/models", headers={"x-api-key": "other"}))[0] == 429


async def test_messages_on_sockets_are_requests(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path, "requests_per_second = 0.01", "burst = 3") as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-1"}, headers=MAIN)
        async with client.ws_connect("/v1/ws", headers=ACME) as socket:
            for _ in range(4):
                await socket.send_json({"type": "push", "session_id": "acme-1", "data": "x"})
            replies = [await socket.receive_json(timeout=10) for _ in range(4)]
    assert [reply["type"] for reply in replies] == ["push_ack", "push_ack", "error", "error"]
    assert replies[3]["data"]["code"] == 429


@pytest.mark.parametrize(
    ("setting", "status", "code"),
    [("max_requests_per_client", 429, "too_many_requests"), ("max_requests", 503, "too_busy")],
)
async def test_requests_at_once_are_bounded(
    redis: Redis, tmp_path: Path, engine: FastEngine, setting: str, status: int, code: str
) -> None:
    async with serving(redis, tmp_path, engine=engine, **{setting: 1}) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-1"}, headers=ACME)
        async with stuck(client, engine):
            async with client.get("/v1/models", headers=ACME) as response:
                assert (response.status, response.headers["Retry-After"]) == (status, "1")
                assert (await response.json())["error"]["code"] == code
            rivals, _ = await call(client, "GET", "/v1/models", headers=RIVAL)
            assert rivals == (200 if status == 429 else 503)
            assert (await client.get("/health")).status == 200
            # What only waits for events is not a request in this sense.
            async with client.get(EVENTS, headers=ACME) as events:
                assert events.status == 200
        await ok(client, "GET", "/v1/models", headers=ACME)


@pytest.mark.parametrize(
    ("setting", "status", "code"),
    [("max_subscriptions_per_client", 429, "too_many_subscriptions"), ("max_subscriptions", 503, "too_busy")],
)
async def test_subscriptions_are_bounded(redis: Redis, tmp_path: Path, setting: str, status: int, code: str) -> None:
    async with serving(redis, tmp_path, **{setting: 1}) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-1"}, headers=ACME)
        async with client.get(EVENTS, headers=ACME) as events:
            assert events.status == 200
            for path in (EVENTS, "/v1/events?prefix=", "/v1/sessions/acme-1/flash?wait=1"):
                refused, reply = await call(client, "GET", path, headers=ACME)
                assert (refused, reply["error"]["code"]) == (status, code)
            with pytest.raises(aiohttp.WSServerHandshakeError) as handshake:
                await client.ws_connect("/v1/ws", headers=ACME)
            assert handshake.value.status == status
            await ok(client, "GET", "/v1/sessions/acme-1/flash", headers=ACME)
            events.close()
        await until(lambda: not client.app[CLIENTS]._serving["subscriptions"])
        async with client.ws_connect("/v1/ws", headers=ACME) as socket:
            assert not socket.closed


async def test_an_answer_that_does_not_begin_is_given_up_and_what_has_begun_goes_on(
    redis: Redis, tmp_path: Path, engine: FastEngine
) -> None:
    async with serving(redis, tmp_path, engine=engine, answer_timeout_seconds=0.1, wait_seconds_max=0) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-1"}, headers=ACME)
        async with client.get(EVENTS, headers=ACME) as events, client.ws_connect("/v1/ws", headers=ACME) as socket:
            assert b"connected" in await events.content.readuntil(b"\n\n")
            engine.generate_gate.clear()
            async with client.request(*ASK[:2], json=ASK[2], headers=ACME) as response:
                assert (response.status, response.headers["Retry-After"]) == (503, "1")
                assert (await response.json())["error"]["code"] == "answer_timeout"
            await until(lambda: not apps.core(client).manager.questions.running)
            engine.generate_gate.set()
            await socket.send_json({"type": "push", "session_id": "acme-1", "data": "x"})
            assert (await socket.receive_json(timeout=10))["type"] == "push_ack"
            async with asyncio.timeout(10):
                assert b"data_updated" in await events.content.readuntil(b"\n\n")


async def test_a_key_that_is_withdrawn_ends_what_it_opened(redis: Redis, tmp_path: Path) -> None:
    async with serving(redis, tmp_path) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-1"}, headers=ACME)
        await ok(client, "POST", "/v1/sessions", {"id": "rival-1"}, headers=RIVAL)
        async with (
            client.get(EVENTS, headers=ACME) as events,
            client.ws_connect("/v1/ws?prefix=", headers=ACME) as socket,
            client.ws_connect("/v1/ws", headers=RIVAL) as others,
        ):
            await events.content.readuntil(b"\n\n")
            assert (await socket.receive_json(timeout=10))["type"] == "connected"
            (tmp_path / "keys.toml").write_text(entry("rival", 'prefix = "rival-"'))
            client.app[CLIENTS].reload()
            with pytest.raises(aiohttp.ClientPayloadError):
                await events.content.read()
            assert (await socket.receive(timeout=10)).type is aiohttp.WSMsgType.CLOSE
            assert (await call(client, "GET", "/v1/models", headers=ACME))[0] == 401
            await others.send_json({"type": "push", "session_id": "rival-1", "data": "x"})
            assert (await others.receive_json(timeout=10))["type"] == "push_ack"


async def test_headers_and_addresses_have_a_length(client: apps.Client) -> None:
    assert (await client.get("/v1/models", headers={"x-long": "x" * 8000})).status == 200
    assert (await client.get("/v1/models", headers={"x-long": "x" * 9000})).status == 400
    assert (await client.get("/v1/models?" + "x" * 9000)).status == 400
    assert (await client.get("/v1/models", headers={f"x-{number}": "x" for number in range(140)})).status == 400
