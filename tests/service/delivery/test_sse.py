"""Event streams: frames, order, heartbeats, and how they end."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from flashquery.events import Event
from tests import apps
from tests.apps import answered, core, ok, server_side, settled, until
from tests.engine.fast import FastEngine
from tests.service.delivery.sse import parse, read

SESSION = "/v1/sessions/s"
EVENTS = f"{SESSION}/events"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client) -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
    await settled(client, "s")


async def test_the_first_frame_is_connected(client: apps.Client) -> None:
    await push(client)
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    await answered(client, "s")
    await ok(client, "DELETE", f"{SESSION}/flash/1")
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Cold?"})
    async with client.get(EVENTS) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert "no-cache" in response.headers["Cache-Control"]
        first = await response.content.readuntil(b"\n\n")
    assert (
        re.sub(rb"id: [0-9]+\n", b"", first)
        == b'event: connected\ndata: {"session_id":"s","data_version":1,"flash_queries":1}\n\n'
    )


async def test_every_cached_answer_is_replayed_before_anything_new(client: apps.Client) -> None:
    for text in ("Größer?\u2028", "Cold?"):
        await ok(client, "POST", f"{SESSION}/flash", {"query": text})
    await push(client)
    first, second = await answered(client, "s")
    async with client.get(EVENTS) as response:
        assert (await read(response))[1]["flash_queries"] == 2
        for query in (first, second):
            kind, data = await read(response)
            assert kind == "flash_ready"
            assert data == {
                name: query[name] for name in ("id", "query", "value", "data_version", "confidence", "evaluated_at")
            }
        await push(client)
        kind, data = await read(response)
        assert (kind, data["data_version"]) == ("data_updated", 2)


async def test_a_new_version_is_told_before_the_answers_over_it(client: apps.Client) -> None:
    for query in ("Hot?", "Cold?"):
        await ok(client, "POST", f"{SESSION}/flash", {"query": query})
    async with client.get(EVENTS) as response:
        await read(response)
        for version in (1, 2):
            await push(client)
            tokens = core(client).manager.get("s").tokens
            assert await read(response) == (
                "data_updated",
                {"data_version": version, "tokens": tokens, "entries": version, "pending": 0},
            )
            answers = [await read(response) for _ in range(2)]
            assert {kind for kind, _ in answers} == {"flash_ready"}
            assert {(data["id"], data["data_version"]) for _, data in answers} == {(1, version), (2, version)}


async def test_silence_is_filled_with_heartbeats(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, heartbeat_seconds=0.1) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.get(EVENTS) as response:
            await read(response)
            for _ in range(2):
                assert await response.content.readuntil(b"\n\n") == b": heartbeat\n\n"
            await push(client)
            frame = b": heartbeat\n\n"
            while frame == b": heartbeat\n\n":
                frame = await response.content.readuntil(b"\n\n")
            assert parse(frame)[0] == "data_updated"


async def test_it_ends_when_the_session_is_deleted(client: apps.Client) -> None:
    async with client.get(EVENTS) as response, client.get(EVENTS) as other:
        await read(response)
        await read(other)
        await ok(client, "DELETE", SESSION)
        assert await response.content.read() == await other.content.read() == b""
    assert core(client).hub.subscribers == 0


async def test_it_ends_when_the_server_stops(redis: Redis, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session:
        await redis.flushall()
        async with apps.serving(redis, tmp_path) as client:
            await ok(client, "POST", "/v1/sessions", {"id": "s"})
            response = await session.get(client.make_url(EVENTS))
            await read(response)
        assert await response.content.read() == b""


async def test_it_ends_when_the_client_leaves(client: apps.Client) -> None:
    response = await client.get(EVENTS)
    await read(response)
    session = core(client).manager.get("s")
    assert not session.idle
    response.close()
    await until(lambda: session.idle)
    assert core(client).hub.subscribers == 0


async def test_a_subscriber_that_falls_behind_is_ended(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, subscriber_backlog=2) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.get(EVENTS) as response, client.get(EVENTS) as patient:
            await read(response)
            await read(patient)
            subscriptions = core(client).hub._named["s"]
            lagging = next(iter(subscriptions))
            for version in range(3):
                lagging.offer(Event("data_updated", {"data_version": version, "tokens": 0, "pending": 0}, "s"))
            await until(lambda: core(client).hub.subscribers == 1)
            await push(client)
            ended, other = sorted(await asyncio.gather(response.content.readany(), patient.content.readany()), key=len)
            assert parse(ended) == ("error", {"reason": "lagging"})
            assert parse(other)[0] == "data_updated"


async def test_a_client_that_never_reads_is_dropped(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, ws_read_timeout_seconds=0.1) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        with socket.create_connection((client.host, client.port)) as deaf:
            deaf.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            hub = core(client).hub
            await until(lambda: hub.subscribers)
            (subscription,) = hub._named["s"]
            large = {"id": 1, "data_version": 1, "evaluated_at": 0.0, "value": "x" * 2**20}
            # More than the kernel's buffers take.
            for _ in range(40):
                subscription.offer(Event("flash_ready", large, "s"))
            await until(lambda: not hub.subscribers)
            assert core(client).manager.get("s").idle
            await until(lambda: not server_side(client, deaf))


async def test_an_event_stream_has_no_head(client: apps.Client) -> None:
    async with client.head(EVENTS) as response:
        assert response.status == 405


async def test_answers_of_a_frozen_model_come_when_it_thaws(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    engine.generate_gate.clear()
    async with client.get(EVENTS) as response:
        await read(response)
        for _ in range(3):
            await push(client)
        updates = [(await read(response))[1]["data_version"] for _ in range(3)]
        assert updates == [1, 2, 3]
        engine.generate_gate.set()
        versions: list[int] = []
        while not versions or versions[-1] < 3:
            kind, data = await read(response)
            assert kind == "flash_ready"
            versions.append(data["data_version"])
        assert versions == [1, 3], "versions in between are skipped"
