"""The session socket: heartbeats, limits, and how it ends, frame by frame."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from pathlib import Path

import orjson
import pytest
from aiohttp import WSMsgType
from redis.asyncio import Redis

from flashquery.events import Event
from tests import apps
from tests.apps import core, ok, server_side, until
from tests.service.delivery.frames import CLOSE, PING, PONG, TEXT, raw

SESSION = "/v1/sessions/s"
WS = f"{SESSION}/ws"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


# Heartbeats and silence


async def test_the_server_pings_and_a_pong_keeps_the_socket(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, heartbeat_seconds=0.1, ws_read_timeout_seconds=0.4) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.ws_connect(WS, autoping=False) as socket:
            await socket.receive_json(timeout=10)
            for _ in range(8):
                message = await socket.receive(timeout=10)
                assert (message.type, message.data) == (WSMsgType.PING, b"hb")
                await socket.pong(message.data)
            await socket.send_json({"type": "ping"})
            while (message := await socket.receive(timeout=10)).type is WSMsgType.PING:
                continue
            assert message.json()["type"] == "pong"


async def test_heartbeats_come_beside_events(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, heartbeat_seconds=0.1) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.ws_connect(WS, autoping=False) as socket:
            pings = 0
            while pings < 3:
                if (await socket.receive(timeout=10)).type is WSMsgType.PING:
                    pings += 1
                await socket.send_json({"type": "ping"})


async def test_a_client_that_answers_nothing_is_closed(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, heartbeat_seconds=0.1, ws_read_timeout_seconds=0.2) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            frames = await socket.rest()
        assert frames[0][0] == TEXT
        assert (PING, b"hb") in frames
        assert frames[-1] == (CLOSE, b"")
        await until(lambda: core(client).manager.get("s").idle)
        await until(lambda: not core(client).hub.subscribers)


# Frame limits


async def test_a_frame_of_exactly_the_limit_passes(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, ws_frame_bytes=1024) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.ws_connect(WS) as socket:
            await socket.receive_json(timeout=10)
            text = orjson.dumps({"type": "push", "data": ""}).decode()
            text = text.replace('""', f'"{"x" * (1024 - len(text))}"')
            assert len(text) == 1024
            await socket.send_str(text)
            assert (await socket.receive_json(timeout=10))["type"] == "push_ack"


@pytest.mark.parametrize("length", [1025, 2**40])
async def test_a_frame_beyond_the_limit_drops_the_connection_unread(redis: Redis, tmp_path: Path, length: int) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, ws_frame_bytes=1024) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            await socket.receive()
            await socket.send_header(TEXT, length)
            frames = await socket.rest()
        assert all(opcode == CLOSE for opcode, _ in frames), "no JSON error"
        await until(lambda: not core(client).hub.subscribers)


async def test_fragments_count_together(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, ws_frame_bytes=1024) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            await socket.receive()
            await socket.send((TEXT, b'{"type":"push","data":"' + b"x" * 600), fin=False)
            await socket.send_header(0, 600)
            frames = await socket.rest()
        assert all(opcode == CLOSE for opcode, _ in frames)
        assert core(client).manager.get("s").queue.total_pushed == 0


async def test_a_text_frame_that_is_no_utf8_drops_the_connection(client: apps.Client) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        await socket.send((TEXT, b"\xff\xfe"))
        assert all(opcode == CLOSE for opcode, _ in await socket.rest())


# The end


async def test_a_close_message_is_answered_by_an_empty_close_frame(client: apps.Client) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        await socket.send((TEXT, b'{"type":"close"}'))
        assert await socket.rest() == [(CLOSE, b"")]
    await until(lambda: core(client).manager.get("s").idle)


async def test_replies_on_their_way_come_before_the_close(client: apps.Client) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        await socket.send(
            (TEXT, b'{"type":"push","data":"x"}'), (TEXT, b'{"type":"ping"}'), (TEXT, b'{"type":"close"}')
        )
        frames = await socket.rest()
        kinds = [orjson.loads(payload)["type"] for opcode, payload in frames if opcode == TEXT]
        assert kinds[:2] == ["push_ack", "pong"]
        assert frames[-1] == (CLOSE, b"")


@pytest.mark.parametrize("payload", [b"", struct.pack("!H", 1000), struct.pack("!H", 1001) + b"bye"])
async def test_a_close_frame_is_answered_by_an_empty_one(client: apps.Client, payload: bytes) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        await socket.send((CLOSE, payload))
        assert await socket.rest() == [(CLOSE, b"")]


async def test_deleting_the_session_closes_its_sockets(client: apps.Client) -> None:
    async with raw(client, WS) as one, client.ws_connect(WS) as other:
        await one.receive()
        await other.receive_json(timeout=10)
        await ok(client, "DELETE", SESSION)
        assert await one.rest() == [(CLOSE, b"")]
        closing = await other.receive(timeout=10)
        assert closing.type is WSMsgType.CLOSE
    await until(lambda: not core(client).hub.subscribers)


async def test_a_server_that_stops_closes_its_sockets(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            await socket.receive()
            frames, _ = await asyncio.gather(socket.rest(), client.server.close())
            assert frames == [(CLOSE, (1001).to_bytes(2, "big") + b"the server stops")]


async def test_a_client_that_breaks_off_is_forgotten(client: apps.Client) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        assert not core(client).manager.get("s").idle
    await until(lambda: core(client).manager.get("s").idle)
    assert core(client).hub.subscribers == 0


async def test_a_subscriber_that_falls_behind_is_closed(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, subscriber_backlog=2) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            await socket.receive()
            (subscription,) = core(client).hub._named["s"]
            for version in range(3):
                subscription.offer(Event("data_updated", {"data_version": version, "tokens": 0, "pending": 0}, "s"))
            assert await socket.rest() == [(CLOSE, struct.pack("!H", 1013) + b"lagging")], "try again later"


async def test_a_client_that_never_reads_is_dropped(
    redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, ws_read_timeout_seconds=0.2) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with raw(client, WS) as socket:
            hub = core(client).hub
            (subscription,) = hub._named["s"]
            large = {"id": 1, "data_version": 1, "evaluated_at": 0.0, "value": "x" * 2**20}
            for _ in range(40):
                subscription.offer(Event("flash_ready", large, "s"))
            # It lives, and says so.
            with contextlib.suppress(ConnectionError):
                while hub.subscribers:
                    await socket.send((PONG, b""))
                    await asyncio.sleep(0.01)
            await until(lambda: not server_side(client, socket.socket))
            assert core(client).manager.get("s").idle
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
