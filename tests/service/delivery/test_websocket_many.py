"""The socket of several sessions: pushes to any of them, events of those that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest
from redis.asyncio import Redis

from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.engine.fast import FastEngine
from tests.service.delivery.frames import CLOSE, TEXT, UPGRADE, raw
from tests.service.delivery.messages import receive, receive_msgpack, unplaced

BOTH = "/v1/ws?session=a&session=b"


@pytest.fixture(autouse=True)
async def _sessions(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await create(client, session_id)


async def create(client: apps.Client, session_id: str) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": session_id})


def connected(session_id: str, version: int = 0, queries: int = 0) -> dict[str, Any]:
    return {
        "type": "connected",
        "data": {"session_id": session_id, "data_version": version, "flash_queries": queries},
    }


def push(session_id: str, data: str | list[str] = "x") -> dict[str, Any]:
    return {"type": "push", "session_id": session_id, "data": data}


async def test_pushes_to_two_sessions_are_acknowledged_before_what_they_cause(client: apps.Client) -> None:
    for session_id in ("a", "b"):
        await ok(client, "POST", f"/v1/sessions/{session_id}/flash", {"query": "Hot?"})
    async with client.ws_connect(BOTH) as socket:
        assert [await receive(socket) for _ in range(2)] == [connected("a", 0, 1), connected("b", 0, 1)]
        for session_id, data in (("a", ["x", "y"]), ("b", "z")):
            await socket.send_json(push(session_id, data))
        heard: dict[str, list[dict[str, Any]]] = {"a": [], "b": []}
        for _ in range(6):
            message = await receive(socket)
            heard[message["data"]["session_id"]].append(message)
        for session_id, pushed in (("a", 2), ("b", 1)):
            ack, updated, ready = heard[session_id]
            assert ack == {
                "type": "push_ack",
                "data": {
                    "session_id": session_id,
                    "pushed": pushed,
                    "dropped": 0,
                    "pending": pushed,
                    "total_pushed": pushed,
                    "total_dropped": 0,
                    "data_version": 0,
                },
            }
            tokens = core(client).manager.get(session_id).tokens
            assert updated == {
                "type": "data_updated",
                "data": {
                    "session_id": session_id,
                    "data_version": 1,
                    "tokens": tokens,
                    "entries": pushed,
                    "pending": 0,
                },
            }
            (answer,) = await answered(client, session_id)
            assert (ready["type"], ready["data"]["value"]) == ("flash_ready", answer["value"])


async def test_any_session_can_be_pushed_to_and_only_those_asked_for_are_heard(client: apps.Client) -> None:
    async with client.ws_connect("/v1/ws?session=a") as socket:
        assert await receive(socket) == connected("a")
        await socket.send_json(push("b"))
        assert (await receive(socket))["data"]["session_id"] == "b"
        await settled(client, "b")
        await socket.send_json(push("a"))
        assert [(await receive(socket))["type"] for _ in range(2)] == ["push_ack", "data_updated"]


async def test_a_producer_hears_its_acknowledgements_and_nothing_else(client: apps.Client) -> None:
    async with client.ws_connect("/v1/ws") as socket:
        for session_id in ("a", "b", "a"):
            await socket.send_json(push(session_id))
            ack = await receive(socket)
            assert (ack["type"], ack["data"]["session_id"]) == ("push_ack", session_id)
            await settled(client, session_id)
        await create(client, "c")
        await ok(client, "DELETE", "/v1/sessions/a")
        await socket.send_json({"type": "ping"})
        assert await receive(socket) == {"type": "pong", "data": {}}


async def test_an_engine_that_is_behind_holds_up_no_acknowledgement(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    async with client.ws_connect("/v1/ws") as socket:
        # The first is large enough to be tokenized beside the event loop; the second takes its turn after it.
        pushes = [("a", ["\n" * 3] * 300), ("b", "x"), ("a", "y"), ("b", "z")]
        for session_id, data in pushes:
            await socket.send_json(push(session_id, data))
        acks = [(await receive(socket))["data"] for _ in pushes]
        assert [(ack["session_id"], ack["total_pushed"]) for ack in acks] == [
            ("a", 300),
            ("b", 1),
            ("a", 301),
            ("b", 2),
        ]
    engine.ingest_gate.set()


async def test_a_prefix_brings_sessions_created_later_and_tells_who_is_gone(client: apps.Client) -> None:
    async with client.ws_connect("/v1/ws?prefix=plant-") as socket:
        await create(client, "plant-1")
        assert await receive(socket) == connected("plant-1")
        await socket.send_json(push("plant-1"))
        assert [(await receive(socket))["type"] for _ in range(2)] == ["push_ack", "data_updated"]
        await ok(client, "DELETE", "/v1/sessions/plant-1")
        assert await receive(socket) == {"type": "deleted", "data": {"session_id": "plant-1"}}
        await socket.send_json(push("plant-1"))
        error = await receive(socket)
        assert (error["type"], error["data"]["code"], error["data"]["session_id"]) == ("error", 404, "plant-1")


async def test_it_closes_when_the_last_named_session_is_deleted(client: apps.Client) -> None:
    async with raw(client, BOTH) as socket:
        for _ in range(2):
            await socket.receive()
        for session_id in ("b", "a"):
            await ok(client, "DELETE", f"/v1/sessions/{session_id}")
        frames = await socket.rest()
        deletions = [unplaced(orjson.loads(payload)) for opcode, payload in frames if opcode == TEXT]
        assert deletions == [{"type": "deleted", "data": {"session_id": session_id}} for session_id in ("b", "a")]
        assert frames[-1] == (CLOSE, b"")
    await until(lambda: not core(client).hub.subscribers)


async def test_a_client_that_breaks_off_is_forgotten(client: apps.Client) -> None:
    async with raw(client, BOTH) as socket:
        await socket.receive()
        assert not any(session.idle for session in core(client).manager.sessions())
    await until(lambda: all(session.idle for session in core(client).manager.sessions()))
    assert core(client).hub.subscribers == 0


@pytest.mark.parametrize(
    ("message", "named", "session_id"),
    [
        (push("nowhere"), "nowhere", "nowhere"),
        (push("a", "x" * 4096), "tokens", "a"),
        ({"type": "push", "data": "x"}, "session_id", None),
        (push(""), "session_id", None),
        (push("no spaces"), "session_id", None),
        (push("x" * 129), "session_id", None),
        (push("a\n"), "session_id", None),
        ({**push("a"), "session_id": ["a", "b"]}, "session_id", None),
        ({**push("a"), "role": "system"}, "role", None),
        ({"type": "push", "session_id": "a"}, "data", None),
        ({"type": "watch", "session_id": "a"}, "type", None),
    ],
    ids=str,
)
async def test_a_refused_message_is_an_error_and_no_end(
    client: apps.Client, message: dict[str, Any], named: str, session_id: str | None
) -> None:
    async with client.ws_connect("/v1/ws") as socket:
        await socket.send_json(message)
        error = await receive(socket)
        assert (error["type"], error["data"].get("session_id")) == ("error", session_id)
        assert 400 <= error["data"]["code"] < 500
        assert named in error["data"]["message"]
        await socket.send_json(push("a"))
        ack = await receive(socket)
        assert (ack["type"], ack["data"]["total_pushed"]) == ("push_ack", 1)


async def test_the_msgpack_subprotocol_speaks_binary_frames(client: apps.Client) -> None:
    async with client.ws_connect(BOTH, protocols=["msgpack"]) as socket:
        assert [await receive_msgpack(socket) for _ in range(2)] == [connected("a"), connected("b")]
        await socket.send_bytes(msgpack.packb(push("b", ["x", "y"])))
        for kind in ("push_ack", "data_updated"):
            message = await receive_msgpack(socket)
            assert (message["type"], message["data"]["session_id"]) == (kind, "b")
        await socket.send_bytes(msgpack.packb(push("nowhere")))
        assert (await receive_msgpack(socket))["data"]["code"] == 404


async def test_the_socket_of_one_session_takes_no_other(client: apps.Client) -> None:
    async with client.ws_connect("/v1/sessions/a/ws") as socket:
        await receive(socket)
        await socket.send_json(push("b"))
        assert "session_id" in (await receive(socket))["data"]["message"]
        assert core(client).manager.get("b").queue.total_pushed == 0


# Who may, and what is refused before the upgrade


@pytest.mark.parametrize("path", ["/v1/events", "/v1/ws"])
@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("session=a&session=nowhere", 404, "session_id"),
        ("session=", 400, "session.0"),
        ("session=a&session=no%20spaces", 400, "session.1"),
        ("session=a%0A", 400, "session.0"),
        ("session=%FF", 400, "session.0"),
        (f"session={'x' * 129}", 400, "session.0"),
        ("&".join(["session=a"] * 257), 400, "session"),
        ("prefix=*", 400, "prefix"),
        ("prefix=%7Ba", 400, "prefix"),
        (f"prefix={'x' * 129}", 400, "prefix"),
        ("prefix=a&prefix=b", 400, "prefix"),
        ("sessions=a", 400, "sessions"),
        ("session[]=a", 400, "session[]"),
    ],
)
async def test_bad_selections_are_refused_by_name(
    client: apps.Client, path: str, query: str, status: int, param: str
) -> None:
    answer = await call(client, "GET", f"{path}?{query}", headers=UPGRADE if path == "/v1/ws" else {})
    assert (answer[0], answer[1]["error"]["param"]) == (status, param)
    assert core(client).hub.subscribers == 0
    assert all(session.idle for session in core(client).manager.sessions())


async def test_an_event_stream_of_nothing_is_refused(client: apps.Client) -> None:
    status, reply = await call(client, "GET", "/v1/events")
    assert (status, reply["error"]["param"]) == (400, "session")
    assert "prefix" in reply["error"]["message"]


async def test_what_is_no_upgrade_is_400(client: apps.Client) -> None:
    status, reply = await call(client, "GET", BOTH)
    assert (status, reply["error"]["param"]) == (400, "upgrade")


async def test_the_key_is_asked_for_first(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, api_key="secret") as client:
        for path in ("/v1/events", "/v1/events?session=nowhere", "/v1/ws", "/v1/ws?session=nowhere"):
            assert (await call(client, "GET", path, headers=UPGRADE if "ws" in path else {}))[0] == 401
        async with client.ws_connect("/v1/ws", headers={"x-api-key": "secret"}) as socket:
            await socket.send_json({"type": "ping"})
            assert (await receive(socket))["type"] == "pong"


async def test_pages_of_other_origins_are_refused_unless_allowed(redis: Redis, tmp_path: Path) -> None:
    app, evil = "https://app.example.com", "https://evil.example.com"
    await redis.flushall()
    async with apps.serving(redis, tmp_path, cors_origins=app) as client:
        status, reply = await call(client, "GET", "/v1/ws", headers={**UPGRADE, "Origin": evil})
        assert (status, reply["error"]["code"]) == (403, "origin_not_allowed")
        async with client.ws_connect("/v1/ws", headers={"Origin": app}) as socket:
            await socket.send_json({"type": "ping"})
            assert (await receive(socket))["type"] == "pong"
        for origin, allowed in ((app, app), (evil, None)):
            async with client.get("/v1/events?prefix=", headers={"Origin": origin}) as response:
                assert response.headers.get("Access-Control-Allow-Origin") == allowed
