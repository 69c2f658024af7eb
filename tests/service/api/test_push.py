"""Pushing over HTTP: what is accepted, dropped, refused, and how it becomes versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from service.keys import METRICS
from tests import apps
from tests.apps import call, core, ok, settled, until
from tests.engine.fast import FastEngine

SESSION = "/v1/sessions/s"
PUSH = f"{SESSION}/push"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


def read(client: apps.Client, engine: FastEngine) -> str:
    """The data a stream has."""
    text = engine.tokenizer.decode(core(client).manager.get("s").timeline.tokens)
    return text.rpartition("<|im_start|>user\n")[2]


async def test_the_acknowledgement_counts_exactly(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    assert await ok(client, "POST", PUSH, {"data": "größe"}) == {
        "pushed": 1,
        "tokens": 8,
        "dropped": 0,
        "pending": 1,
        "pending_bytes": 7,
        "total_pushed": 1,
        "total_dropped": 0,
        "data_version": 0,
    }
    await until(lambda: engine.calls)
    assert await ok(client, "POST", PUSH, {"data": ["a", "bc"]}) == {
        "pushed": 2,
        "tokens": 5,
        "dropped": 0,
        "pending": 3,
        "pending_bytes": 10,
        "total_pushed": 3,
        "total_dropped": 0,
        "data_version": 0,
    }
    engine.ingest_gate.set()
    await settled(client, "s")
    ack = await ok(client, "POST", PUSH, {"data": "d"})
    assert (ack["pending"], ack["pending_bytes"], ack["total_pushed"], ack["data_version"]) == (1, 1, 4, 2)
    await settled(client, "s")
    assert read(client, engine) == "größe\na\nbc\nd\n"


async def test_msgpack_in_and_out(client: apps.Client, engine: FastEngine) -> None:
    body = msgpack.packb({"data": ["a", "b"]})
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    async with client.post(PUSH, data=body, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/msgpack")
        ack = msgpack.unpackb(await response.read())
    assert (ack["pushed"], ack["total_pushed"], ack["pending"]) == (2, 2, 2)
    await settled(client, "s")
    assert read(client, engine) == "a\nb\n"


async def test_everything_queued_becomes_one_version(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    await ok(client, "POST", PUSH, {"data": "first"})
    await until(lambda: engine.calls)
    for data in ("a", ["b", "c"], "d"):
        await ok(client, "POST", PUSH, {"data": data})
    engine.ingest_gate.set()
    await settled(client, "s")
    assert (await ok(client, "GET", SESSION))["data_version"] == 2
    assert read(client, engine) == "first\na\nb\nc\nd\n"


async def test_a_full_queue_drops_the_oldest_that_wait(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, queue_entries=3) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        engine.ingest_gate.clear()
        await ok(client, "POST", PUSH, {"data": "reading"})
        await until(lambda: engine.calls)
        ack = await ok(client, "POST", PUSH, {"data": ["a", "b"]})
        assert (ack["pushed"], ack["dropped"], ack["pending"]) == (2, 0, 3)
        ack = await ok(client, "POST", PUSH, {"data": ["c", "d", "e"]})
        assert ack == {
            "pushed": 3,
            "tokens": 6,
            "dropped": 2,
            "pending": 4,
            "pending_bytes": len("readingcde"),
            "total_pushed": 6,
            "total_dropped": 2,
            "data_version": 0,
        }
        ack = await ok(client, "POST", PUSH, {"data": [*"fghij"]})
        assert (ack["pushed"], ack["dropped"], ack["pending"], ack["total_dropped"]) == (5, 5, 4, 7)
        engine.ingest_gate.set()
        await settled(client, "s")
        assert read(client, engine) == "reading\nh\ni\nj\n"
        session = await ok(client, "GET", SESSION)
        assert (session["pending"], session["data_version"], session["evicted"]) == (0, 2, 0)


async def test_the_queue_is_bounded_in_bytes_too(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, queue_bytes=1024) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        engine.ingest_gate.clear()
        await ok(client, "POST", PUSH, {"data": "reading"})
        await until(lambda: engine.calls)
        ack = await ok(client, "POST", PUSH, {"data": ["a" * 500, "b" * 500, "c" * 500]})
        assert (ack["dropped"], ack["pending"], ack["pending_bytes"]) == (1, 3, 1007)


async def test_one_entry_too_large_refuses_the_whole_push(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, entry_bytes=10) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        status, reply = await call(client, "POST", PUSH, {"data": ["fine", "x" * 11]})
        assert (status, reply["error"]["param"], reply["error"]["type"]) == (400, "data.1", "invalid_request_error")
        assert (await ok(client, "POST", PUSH, {"data": "x" * 10}))["total_pushed"] == 1


async def test_a_stream_longer_than_the_context_is_refused_before_it_is_queued(client: apps.Client) -> None:
    for data in ("x" * 4096, ["x" * 1000] * 4):
        status, reply = await call(client, "POST", PUSH, {"data": data})
        assert (status, reply["error"]["code"], reply["error"]["param"]) == (400, "context_length_exceeded", "data")
    ack = await ok(client, "POST", PUSH, {"data": "x" * 1000})
    assert (ack["total_pushed"], ack["total_dropped"]) == (1, 0)
    await settled(client, "s")
    assert (await ok(client, "GET", SESSION))["data_version"] == 1


async def test_a_full_cache_refuses_no_push_and_says_who_made_room(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine(context=1024, kv_capacity=2048)
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        for session_id in ("s", "t"):
            await ok(client, "POST", "/v1/sessions", {"id": session_id})
        await ok(client, "POST", "/v1/sessions/t/push", {"data": "x" * 500})
        await settled(client, "t")
        await ok(client, "POST", PUSH, {"data": "x" * 500})
        await settled(client, "s")
        tiers = [(await ok(client, "GET", f"/v1/sessions/{name}"))["residency"] for name in ("s", "t")]
        assert tiers == ["resident", "warm"]
        health = await ok(client, "GET", "/health")
        assert [health[f"sessions_{tier}"] for tier in ("resident", "warm", "cold")] == [1, 1, 0]
        assert health["session_kv_tokens"] == core(client).manager.get("s").kv_tokens
        await ok(client, "POST", "/v1/sessions/t/generate", {"prompt": "x?"})
        await until(lambda: core(client).manager.get("t").residency == "resident")


async def test_a_session_deleted_while_the_body_arrives_accepts_nothing(client: apps.Client) -> None:
    rest = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"data":'
        await rest.wait()
        yield b'"late"}'

    headers = {"Content-Type": "application/json"}
    push = asyncio.create_task(client.post(PUSH, data=body(), headers=headers))
    await until(lambda: client.app[METRICS].connections == 1)
    await ok(client, "DELETE", SESSION)
    rest.set()
    response = await push
    assert response.status == 404
    assert core(client).manager.budget.granted == 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "data"),
        ({"data": ""}, "data"),
        ({"data": []}, "data"),
        ({"data": ["a", ""]}, "data.1"),
        ({"data": ["a", 1]}, "data.1"),
        ({"data": 1}, "data"),
        ({"data": None}, "data"),
        ({"data": {"role": "user"}}, "data"),
        ({"data": "x", "wait": True}, "wait"),
        ([], "body"),
    ],
)
async def test_bad_bodies_are_refused_by_field(client: apps.Client, body: Any, param: str) -> None:
    status, reply = await call(client, "POST", PUSH, body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert (await ok(client, "GET", SESSION))["pending"] == 0
