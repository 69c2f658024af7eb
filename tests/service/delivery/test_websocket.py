"""The session socket: what is said over it, and who may open it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
from aiohttp import web
from redis.asyncio import Redis

from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.engine.fast import FastEngine, FastHeld
from tests.service.delivery.frames import PING, PONG, TEXT, UPGRADE, raw
from tests.service.delivery.messages import receive, receive_msgpack

SESSION = "/v1/sessions/s"
WS = f"{SESSION}/ws"
CONNECTED = {"type": "connected", "data": {"session_id": "s", "data_version": 0, "flash_queries": 0}}


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client) -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
    await settled(client, "s")


# Messages


async def test_connected_comes_first_then_every_cached_answer(client: apps.Client) -> None:
    for text in ("Hot?", "Cold?"):
        await ok(client, "POST", f"{SESSION}/flash", {"query": text})
    await push(client)
    queries = await answered(client, "s")
    async with client.ws_connect(WS) as socket:
        assert await receive(socket) == {
            "type": "connected",
            "data": {"session_id": "s", "data_version": 1, "flash_queries": 2},
        }
        for query in queries:
            message = await receive(socket)
            names = ("id", "query", "value", "data_version", "confidence", "evaluated_at")
            assert message == {"type": "flash_ready", "data": {name: query[name] for name in names}}
        await socket.send_json({"type": "ping"})
        assert await receive(socket) == {"type": "pong", "data": {}}


async def test_a_push_is_acknowledged_before_what_it_causes(client: apps.Client) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        for version in (1, 2):
            await socket.send_json({"type": "push", "data": ["a", "b"] if version == 1 else "c"})
            pushed = 2 if version == 1 else 1
            assert await receive(socket) == {
                "type": "push_ack",
                "data": {
                    "pushed": pushed,
                    "dropped": 0,
                    "pending": pushed,
                    "total_pushed": version + 1,
                    "total_dropped": 0,
                    "data_version": version - 1,
                },
            }
            updated, ready = await receive(socket), await receive(socket)
            tokens = core(client).manager.get("s").tokens
            assert updated == {
                "type": "data_updated",
                "data": {"data_version": version, "tokens": tokens, "entries": version + 1, "pending": 0},
            }
            assert (ready["type"], ready["data"]["id"], ready["data"]["data_version"]) == ("flash_ready", 1, version)


@pytest.mark.parametrize("over", ["websocket", "http"])
async def test_a_push_is_acknowledged_before_the_model_begins_on_it(
    client: apps.Client, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    done: list[str] = []

    def note(owner: type, method: str, what: str) -> None:
        inner = getattr(owner, method)

        async def noted(self: Any, *args: Any, **options: Any) -> Any:
            done.append(what)
            return await inner(self, *args, **options)

        monkeypatch.setattr(owner, method, noted)

    note(FastHeld, "extend", "read")
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        note(web.WebSocketResponse, "send_str", "acknowledged")
        note(web.Response, "write_eof", "acknowledged")
        done.clear()
        if over == "websocket":
            await socket.send_json({"type": "push", "data": "x"})
        else:
            await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
        await until(lambda: "read" in done)
    assert done[:2] == ["acknowledged", "read"]


async def test_large_pushes_keep_their_order(client: apps.Client, engine: FastEngine) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        entries = ["a" * 1000, "b", "c" * 1000, "d"]
        # The first is large enough to be tokenized beside the event loop.
        await socket.send_json({"type": "push", "data": ["\n" * 3] * 300})
        for entry in entries:
            await socket.send_json({"type": "push", "data": entry})
        acks: list[int] = []
        while len(acks) < 5:
            message = await receive(socket)
            if message["type"] == "push_ack":
                acks.append(message["data"]["total_pushed"])
        assert acks == [300, 301, 302, 303, 304]
        await settled(client, "s")
        text = engine.tokenizer.decode(core(client).manager.get("s").timeline.tokens)
        assert text.endswith("\n".join(entries) + "\n")


async def test_events_of_other_clients_pushes_arrive_too(client: apps.Client) -> None:
    async with client.ws_connect(WS) as one, client.ws_connect(WS) as other:
        for socket in (one, other):
            assert await receive(socket) == CONNECTED
        await one.send_json({"type": "push", "data": "x"})
        assert [(await receive(one))["type"] for _ in range(2)] == ["push_ack", "data_updated"]
        assert (await receive(other))["type"] == "data_updated", "acknowledgements are for who pushed"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{nonsense", "JSON"),
        ("", "JSON"),
        ("[]", "object"),
        ('{"type":"push"}', "data"),
        ('{"type":"push","data":""}', "data"),
        ('{"type":"push","data":[]}', "data"),
        ('{"type":"push","data":["a",1]}', "data.1"),
        ('{"type":"push","data":{"a":1}}', "data"),
        ('{"type":"push","data":"a","role":"system"}', "role"),
        ('{"type":"generate"}', "type"),
        ('{"data":"x"}', "type"),
        ('{"type":"push","data":"\\ud800"}', "JSON"),
        ("[" * 100_000, "JSON"),
    ],
)
async def test_a_malformed_message_is_an_error_and_no_end(client: apps.Client, text: str, named: str) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        await socket.send_str(text)
        error = await receive(socket)
        assert (error["type"], error["data"]["code"]) == ("error", 400)
        assert named in error["data"]["message"]
        await socket.send_json({"type": "push", "data": "x"})
        ack = await receive(socket)
        assert (ack["type"], ack["data"]["total_pushed"]) == ("push_ack", 1)


async def test_a_refused_push_is_an_error_with_the_status_it_has_over_http(
    client: apps.Client, engine: FastEngine
) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        await socket.send_json({"type": "push", "data": "x" * 4096})
        error = await receive(socket)
        assert (error["type"], error["data"]["code"]) == ("error", 400)
        engine.reading_error = ValueError("a bug")
        await socket.send_json({"type": "push", "data": "x"})
        assert (await receive(socket))["type"] == "push_ack"
        await until(lambda: core(client).manager.get("s").failure)
        await socket.send_json({"type": "push", "data": "x"})
        error = await receive(socket)
        assert (error["type"], error["data"]["code"]) == ("error", 503)


async def test_binary_is_refused_where_text_is_spoken(client: apps.Client) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        await socket.send_bytes(b'{"type":"ping"}')
        error = await receive(socket)
        assert (error["type"], error["data"]["code"]) == ("error", 400)
        assert "msgpack" in error["data"]["message"]


async def test_the_msgpack_subprotocol_speaks_binary_frames(client: apps.Client) -> None:
    async with client.ws_connect(WS, protocols=["other", "msgpack"]) as socket:
        assert socket.protocol == "msgpack"

        assert await receive_msgpack(socket) == CONNECTED
        await socket.send_bytes(msgpack.packb({"type": "push", "data": ["a", "b"]}))
        ack = await receive_msgpack(socket)
        assert (ack["type"], ack["data"]["pushed"]) == ("push_ack", 2)
        assert (await receive_msgpack(socket))["type"] == "data_updated"
        for refused in (b"\xc1", msgpack.packb([1]), msgpack.packb({"type": "push", "data": b"bytes"})):
            await socket.send_bytes(refused)
            error = await receive_msgpack(socket)
            assert (error["type"], error["data"]["code"]) == ("error", 400)
        await socket.send_str('{"type":"ping"}')
        assert (await receive_msgpack(socket))["type"] == "error"
        await socket.send_bytes(msgpack.packb({"type": "ping"}))
        assert (await receive_msgpack(socket))["type"] == "pong"


async def test_other_subprotocols_are_not_taken(client: apps.Client) -> None:
    async with client.ws_connect(WS) as socket:
        assert socket.protocol is None
        assert await receive(socket) == CONNECTED


async def test_a_message_may_come_in_fragments(client: apps.Client) -> None:
    async with raw(client, WS) as socket:
        await socket.receive()
        await socket.send((TEXT, b'{"type":'), fin=False)
        await socket.send((PING, b"between"))
        await socket.send((0, b'"ping"}'))
        assert await socket.receive() == (PONG, b"between")
        assert await socket.receive() == (TEXT, b'{"type":"pong","data":{}}')


# Refusals


async def refused(client: apps.Client, path: str = WS, **options: Any) -> tuple[int, dict[str, Any]]:
    """Status and error of a handshake that must be refused as plain HTTP."""
    headers = {**UPGRADE, **options.pop("headers", {})}
    headers = {name: value for name, value in headers.items() if value}
    status, reply = await call(client, "GET", path, headers=headers, **options)
    assert reply["error"].keys() == {"message", "type", "param", "code"}
    return status, reply["error"]


async def test_refusals_are_plain_http(client: apps.Client) -> None:
    assert (await refused(client, "/v1/sessions/nowhere/ws"))[0] == 404
    assert (await refused(client, "/v1/sessions/no%20spaces/ws"))[0] == 400


@pytest.mark.parametrize(
    "headers",
    [
        {"Upgrade": "", "Connection": ""},
        {"Upgrade": "h2c"},
        {"Sec-WebSocket-Version": "12"},
        {"Sec-WebSocket-Key": "short"},
        {"Sec-WebSocket-Key": ""},
    ],
)
async def test_what_is_no_upgrade_is_400(client: apps.Client, headers: dict[str, str]) -> None:
    status, error = await refused(client, headers=headers)
    assert (status, error["param"]) == (400, "upgrade")


async def test_the_key_is_asked_for_first(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, api_key="secret") as client:
        for path in (WS, "/v1/sessions/nowhere/ws"):
            status, error = await refused(client, path)
            assert (status, error["type"]) == (401, "authentication_error")
        for headers in ({"Authorization": "Bearer secret"}, {"x-api-key": "secret"}):
            await ok(client, "POST", "/v1/sessions", {"id": "s"}, headers=headers)
            async with client.ws_connect(WS, headers=headers) as socket:
                assert await receive(socket) == CONNECTED
            await ok(client, "DELETE", SESSION, headers=headers)


async def test_pages_of_other_origins_are_refused_unless_allowed(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, cors_origins="https://app.example.com") as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        status, error = await refused(client, headers={"Origin": "https://evil.example.com"})
        assert (status, error["code"]) == (403, "origin_not_allowed")
        for origin in ("https://app.example.com", str(client.make_url("")).rstrip("/")):
            async with client.ws_connect(WS, headers={"Origin": origin}) as socket:
                assert await receive(socket) == CONNECTED
