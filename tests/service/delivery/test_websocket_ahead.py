"""Messages that are sent without waiting for the replies to those before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse

from service.delivery import websocket
from streams import pushing
from tests import apps
from tests.apps import core, ok, settled, until
from tests.engine.fast import FastEngine
from tests.losing import Losing
from tests.service.delivery.messages import receive

WS = "/v1/sessions/s/ws"


@pytest.fixture
def engine() -> FastEngine:
    return FastEngine(context=65536, kv_capacity=4 * 65536)


@pytest.fixture
async def client(losing: Losing, tmp_path: Path, engine: FastEngine) -> AsyncIterator[apps.Client]:
    """The application on a Redis that can be held up."""
    async with apps.serving(losing, tmp_path, engine) as client:
        for session_id in "st":
            await ok(client, "POST", "/v1/sessions", {"id": session_id})
        yield client


def push(data: str | list[str], **session: str) -> dict[str, Any]:
    return {"type": "push", "data": data} | session


async def replies(socket: ClientWebSocketResponse, count: int) -> list[Any]:
    """What messages were answered with: acknowledgements as ``total_pushed``, errors as their code."""
    found: list[Any] = []
    while len(found) < count:
        message = await receive(socket)
        match message["type"]:
            case "push_ack":
                found.append(message["data"]["total_pushed"])
            case "error":
                found.append(f"error {message['data']['code']}")
            case "pong":
                found.append("pong")
    return found


def read(client: apps.Client, engine: FastEngine, session_id: str) -> list[str]:
    """The entries that a stream has."""
    session = core(client).manager.get(session_id)
    return engine.tokenizer.decode(session.timeline.tokens[len(session.frame.head) :]).splitlines()


async def test_replies_come_in_order_whatever_they_are(client: apps.Client, engine: FastEngine) -> None:
    messages = [
        (push("a"), 1),
        ({"type": "ping"}, "pong"),
        (push(["b", "c"]), 3),
        (push([]), "error 400"),
        # Large enough to be tokenized beside the event loop, as is what is refused.
        (push(["d" * 10] * 1000), 1003),
        (push("e"), 1004),
        (push(["f" * 70_000, "g"]), "error 400"),
        (push({}), "error 400"),  # type: ignore[arg-type]
        ({"type": "ping"}, "pong"),
        (push("h"), 1005),
    ]
    async with client.ws_connect(WS) as socket:
        for message, _ in messages:
            await socket.send_json(message)
        assert await replies(socket, len(messages)) == [reply for _, reply in messages]
    await settled(client, "s")
    assert read(client, engine, "s") == ["a", "b", "c", *["d" * 10] * 1000, "e", "h"]


async def test_what_is_in_flight_is_bounded_and_all_of_it_arrives(
    client: apps.Client, losing: Losing, engine: FastEngine
) -> None:
    sent = websocket._AHEAD * 5
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        losing.gate.clear()
        for number in range(sent):
            await socket.send_json(push(str(number)))
        backlog = core(client).manager.get("s").backlog
        await until(lambda: backlog.arriving)
        for _ in range(1000):
            await asyncio.sleep(0)
        # Beside those that wait for their turn, one is waited for, and one waits for a place.
        assert len(core(client).journal._lanes["s"].waiting) < websocket._AHEAD + 2
        losing.gate.set()
        assert await replies(socket, sent) == list(range(1, sent + 1))
        assert backlog.arriving == 0
    await settled(client, "s")
    assert read(client, engine, "s") == list(map(str, range(sent)))


async def test_what_cannot_be_written_in_time_is_refused_in_its_place(
    client: apps.Client, losing: Losing, engine: FastEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        monkeypatch.setattr(pushing, "WRITE_SECONDS", 0.1)
        losing.gate.clear()
        await socket.send_json(push("sent"))
        await until(lambda: losing.waiting)
        for number in range(websocket._AHEAD // 2):
            await socket.send_json(push(str(number)))
        await socket.send_json({"type": "ping"})
        await socket.send_json(push([]))
        refused = ["error 503"] * (1 + websocket._AHEAD // 2)
        assert await replies(socket, len(refused) + 2) == [*refused, "pong", "error 400"]
        monkeypatch.undo()
        losing.gate.set()
        # Of the first it could not be told whether it would be written.
        await socket.send_json(push("later"))
        assert await replies(socket, 1) == [2]
        assert core(client).manager.get("s").backlog.arriving == 0
    await settled(client, "s")
    assert read(client, engine, "s") == ["sent", "later"]


async def test_an_acknowledgement_tells_of_its_own_push_where_several_are_written_at_once(
    client: apps.Client, losing: Losing, engine: FastEngine
) -> None:
    engine.ingest_gate.clear()
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        losing.gate.clear()
        for size in (1, 2, 3):
            await socket.send_json(push(["x"] * size))
        await until(lambda: len(core(client).journal._lanes["s"].waiting) == 2)
        losing.gate.set()
        acks = [(await receive(socket))["data"] for _ in range(3)]
    assert [(ack["pushed"], ack["pending"], ack["total_pushed"]) for ack in acks] == [(1, 1, 1), (2, 3, 3), (3, 6, 6)]


async def test_pushes_to_several_sessions_are_acknowledged_in_order_too(
    client: apps.Client, engine: FastEngine
) -> None:
    sent = [("st"[number % 3 > 1], f"{number}") for number in range(60)]
    async with client.ws_connect("/v1/ws") as socket:
        for session_id, text in sent:
            await socket.send_json(push(text, session_id=session_id))
        acks = [(await receive(socket))["data"]["session_id"] for _ in sent]
    assert acks == [session_id for session_id, _ in sent]
    for name in "st":
        await settled(client, name)
        assert read(client, engine, name) == [text for session_id, text in sent if session_id == name]


async def test_what_was_pushed_is_acknowledged_before_a_socket_is_closed(client: apps.Client, losing: Losing) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        losing.gate.clear()
        for _ in range(5):
            await socket.send_json(push("x"))
        await socket.send_json({"type": "close"})
        await until(lambda: len(core(client).journal._lanes["s"].waiting) == 4)
        losing.gate.set()
        assert await replies(socket, 5) == [1, 2, 3, 4, 5]


async def test_a_client_that_leaves_has_pushed_what_was_handed_in(
    client: apps.Client, losing: Losing, engine: FastEngine
) -> None:
    async with client.ws_connect(WS) as socket:
        await receive(socket)
        losing.gate.clear()
        for number in range(5):
            await socket.send_json(push(str(number)))
        await until(lambda: len(core(client).journal._lanes["s"].waiting) == 4)
    await until(lambda: not core(client).hub.subscribers)
    losing.gate.set()
    await until(lambda: core(client).manager.get("s").queue.total_pushed == 5)
    await settled(client, "s")
    assert read(client, engine, "s") == list("01234")
    assert core(client).manager.get("s").backlog.arriving == 0
