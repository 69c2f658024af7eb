"""Questions over HTTP that cannot be answered, or whose client leaves; and limits."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from redis.asyncio import Redis

from service.keys import METRICS
from service.valkey import embedded_valkey
from streams.store import connect
from tests import apps
from tests.apps import answered, call, core, ok, server_side, settled, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import GENERATE, SESSION, SteppedEngine, counters, frames, stream


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client, data: str = "x") -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": data})
    await settled(client, "s")


async def test_an_engine_that_dies_in_mid_stream_is_told_in_a_frame(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        asking = asyncio.create_task(client.post(GENERATE, json={"prompt": "What?", "stream": True}))
        await until(lambda: engine.running)
        engine.step(2)
        async with await asking as response:
            first = await response.content.readuntil(b"\n\n")
            engine.kill()
            piece, failure = frames(first + await response.content.read())
        assert piece.keys() == {"text"}
        assert failure["error"]["code"] == "engine_unavailable"
        assert failure.keys() == {"error"}
        cost = counters(client)
        assert (cost.requests_ok, cost.requests_failed, cost.requests_cancelled) == (0, 1, 0)
        assert core(client).manager.get("s").running == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_that_dies_before_the_first_token_is_told_by_status(
    client: apps.Client, engine: FastEngine, streamed: bool
) -> None:
    engine.generate_gate.clear()
    asking = asyncio.create_task(client.post(GENERATE, json={"prompt": "What?", "stream": streamed}))
    await until(lambda: engine.running)
    engine.kill()
    async with await asking as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["error"]["code"] == "engine_unavailable"
    assert (counters(client).requests_failed, core(client).manager.questions.running) == (1, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_leaves_before_the_first_token_cancels(
    client: apps.Client, engine: FastEngine, streamed: bool
) -> None:
    engine.generate_gate.clear()
    asking = asyncio.create_task(client.post(GENERATE, json={"prompt": "What?", "stream": streamed}))
    await until(lambda: engine.running)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(lambda: not engine.running)
    await until(lambda: not client.app[METRICS].connections)
    cost = counters(client)
    assert (cost.requests_ok, cost.requests_failed, cost.requests_cancelled) == (0, 0, 1)
    assert core(client).manager.get("s").running == core(client).manager.questions.running == 0
    await ok(client, "DELETE", SESSION)


async def test_a_client_that_leaves_in_mid_stream_cancels(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        asking = asyncio.create_task(client.post(GENERATE, json={"prompt": "What?", "stream": True}))
        await until(lambda: engine.running)
        engine.step(2)
        response = await asking
        await response.content.readuntil(b"\n\n")
        response.close()
        await until(lambda: not engine.running)
        await until(lambda: not client.app[METRICS].connections)
        cost = counters(client)
        assert (cost.requests_ok, cost.requests_failed, cost.requests_cancelled) == (0, 0, 1)
        assert core(client).manager.get("s").running == 0


async def test_a_client_that_never_reads_loses_its_place(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine(context=32_768)
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, ws_read_timeout_seconds=0.1) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        engine.generate_gate.clear()
        body = orjson.dumps({"prompt": "Go on.", "ignore_eos": True, "stream": True})
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((client.host, client.port))
            head = (
                f"POST {GENERATE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
            )
            deaf.sendall(head.encode() + b"\r\n\r\n" + body)
            await until(lambda: engine.running)
            transport = server_side(client, deaf)
            assert transport is not None
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            engine.generate_gate.set()
            await until(lambda: not server_side(client, deaf))
        assert (engine.running, core(client).manager.questions.running) == (0, 0)
        assert counters(client).requests_cancelled == 1


async def test_without_redis_answers_come_from_memory_and_questions_are_computed(tmp_path: Path) -> None:
    async with AsyncExitStack() as valkey:
        url = await valkey.enter_async_context(embedded_valkey(tmp_path))
        async with connect(url) as redis, apps.serving(redis, tmp_path) as client:
            await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [{"query": "Hot?"}]})
            await push(client)
            await answered(client, "s")
            await valkey.aclose()
            hit = await ok(client, "POST", GENERATE, {"prompt": "Hot?"})
            answer = await ok(client, "POST", GENERATE, {"prompt": "Cold?"})
            assert (hit["data_version"], hit["flash"]) == (1, True)
            assert (answer["data_version"], "flash" in answer) == (1, False)
            assert len(await stream(client, prompt="Cold?")) > 1
            (polled,) = (await ok(client, "GET", f"{SESSION}/flash"))["data"]
            assert (polled["value"], polled["fresh"]) == (hit["text"], True)
            status, reply = await call(client, "POST", f"{SESSION}/push", {"data": "x"})
            assert (status, reply["error"]["code"]) == (503, "outcome_unknown")
            health = await ok(client, "GET", "/health")
            assert (health["status"], health["store"]) == ("ok", "degraded")
            async with client.get(f"{SESSION}/flash/{polled['id']}/history") as response:
                assert response.status == 503
                assert int(response.headers["Retry-After"]) > 0
                assert (await response.json())["error"]["code"] == "store_unavailable"


# Limits


@pytest.mark.parametrize(("limit", "elsewhere"), [("max_questions_per_session", 200), ("max_questions", 429)])
async def test_questions_past_the_limit_are_429(redis: Redis, tmp_path: Path, limit: str, elsewhere: int) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, **{limit: 1}) as client:
        for session_id in ("s", "t"):
            await ok(client, "POST", "/v1/sessions", {"id": session_id})
        engine.generate_gate.clear()
        running = asyncio.create_task(ok(client, "POST", GENERATE, {"prompt": "What?"}))
        await until(lambda: engine.running)
        for streamed in (False, True):
            async with client.post(GENERATE, json={"prompt": "And?", "stream": streamed}) as response:
                assert response.status == 429
                assert int(response.headers["Retry-After"]) > 0
                assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        other = asyncio.create_task(call(client, "POST", "/v1/sessions/t/generate", {"prompt": "What?"}))
        if elsewhere == 200:
            await until(lambda: engine.running == 2)
        else:
            await other
        engine.generate_gate.set()
        assert (await other)[0] == elsewhere
        await running
        await ok(client, "POST", GENERATE, {"prompt": "Now?"})
