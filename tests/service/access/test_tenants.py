"""The key of a tenant cannot see, list, poll, subscribe to, change or guess sessions that are not its own."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from service.api.legacy.kind import LABELS
from service.app import OPERATIONS
from service.openapi import Operation
from streams.entries import BUILTIN
from streams.store import connect
from tests import apps
from tests.apps import ok
from tests.service.access.tenants import ACME, MAIN, RIVAL, Call, calls, serving
from tests.service.api.test_hostile_input import VALID

# Of a tenant, and of nobody; equally long, so that answers can be compared.
THERE, OLD_THERE, NOWHERE = "rival-1", "rival-2", "rival-9"
_TOLD = ("Content-Type", "Content-Length", "Retry-After", "ETag", "Vary", "WWW-Authenticate")
_NUMBERS = count(1)

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.template}")


@pytest.fixture(scope="module")
async def client(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[apps.Client]:
    async with connect(redis_url) as redis, serving(redis, tmp_path_factory.mktemp("tenants")) as client:
        await make(client, THERE)
        await make(client, OLD_THERE, old=True)
        yield client


async def make(client: apps.Client, session_id: str, *, old: bool = False) -> None:
    """A session with data and a Flash Query."""
    if old:
        await apps.core(client).manager.create(session_id, type=BUILTIN["ohlcv"], labels=LABELS)
        data = VALID["/v1/sessions/{id}/stream/push"]
    else:
        await ok(client, "POST", "/v1/sessions", {"id": session_id}, headers=MAIN)
        data = {"data": "the code is 7391"}
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", data, headers=MAIN)
    await ok(client, "POST", f"/v1/sessions/{session_id}/flash", {"query": "Code?", "max_tokens": 2}, headers=MAIN)


async def outcome(client: apps.Client, method: str, call: Call) -> tuple[int, dict[str, str], str]:
    """Status, headers that are not of the moment, and body."""
    async with client.request(method, call.path, json=call.body, headers=call.headers | ACME) as response:
        told = {name: response.headers[name] for name in _TOLD if name in response.headers}
        text = await response.text()
        if call.path.startswith("/v1/messages"):
            request_id: str = (await response.json())["request_id"]
            text = text.replace(request_id, "")
        return response.status, told, text


async def state(client: apps.Client) -> list[Any]:
    """What tenants may do to sessions."""
    manager = apps.core(client).manager
    sessions = [manager.get(session_id) for session_id in (THERE, OLD_THERE)]
    registries = [list(apps.core(client).flash.registry(session)) for session in sessions]
    return [
        (
            session.queue.total_pushed,
            session.last_used,
            session.window,
            [(query.id, query.text, query.max_tokens) for query in queries],
        )
        for session, queries in zip(sessions, registries, strict=True)
    ]


@every_operation
@pytest.mark.parametrize("there", [THERE, OLD_THERE])
async def test_anothers_session_is_as_one_that_is_not_there(
    client: apps.Client, operation: Operation, there: str
) -> None:
    before = await state(client)
    for call, nowhere in zip(calls(operation, there), calls(operation, NOWHERE), strict=True):
        status, headers, text = await outcome(client, operation.method, call)
        assert status in (400, 403, 404), text
        assert (status, headers, text.replace(there, NOWHERE)) == await outcome(client, operation.method, nowhere)
    assert await state(client) == before


@every_operation
@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
async def test_its_own_session_is_there(client: apps.Client, operation: Operation, old: bool) -> None:
    for number in range(len(calls(operation, "acme-0"))):
        session_id = f"acme-{next(_NUMBERS)}"
        if f"{operation.method} {operation.template}" != "POST /v1/sessions":
            await make(client, session_id, old=old)
        call = calls(operation, session_id)[number]
        async with client.request(operation.method, call.path, json=call.body, headers=call.headers | ACME) as response:
            # Beside 400, where it is of the other generation.
            assert response.status in (101, 200, 400), call
            response.close()
        await client.delete(f"/v1/sessions/{session_id}", headers=MAIN)


@every_operation
async def test_nothing_else_tells_of_anothers_session(client: apps.Client, operation: Operation) -> None:
    if calls(operation, THERE):
        return
    path = operation.template.replace("{id}", apps.core(client).manager.engine.facts.name).replace("{file}", "main.js")
    body = None if operation.request is None else VALID[operation.template]
    async with client.request(operation.method, path, json=body, headers=ACME) as response:
        text = await response.text()
    if operation.tells_all:
        assert response.status == 403
    else:
        assert response.status == 200, text
    assert "rival" not in text
    if operation.template == "/v1/sessions/init":
        assert (await response.json())["session_id"].startswith("acme-")


async def test_lists_have_what_is_ones_own_in_both_generations(client: apps.Client) -> None:
    await make(client, "acme-new")
    await make(client, "acme-old", old=True)
    listed = await ok(client, "GET", "/v1/sessions", headers=ACME)
    ids = {session["id"] for session in listed["data"]}
    assert {"acme-new", "acme-old"} <= ids
    assert all(name.startswith("acme-") for name in ids)
    assert {session["session_id"] for session in listed["sessions"]} <= ids
    assert listed["count"] == len(listed["sessions"])
    everything = await ok(client, "GET", "/v1/sessions", headers=MAIN)
    assert {"acme-new", "acme-old", THERE, OLD_THERE} <= {session["id"] for session in everything["data"]}
    rivals = await ok(client, "GET", "/v1/sessions", headers=RIVAL)
    assert {session["id"] for session in rivals["data"]} == {THERE, OLD_THERE}


async def test_ids_begin_with_the_prefix_whoever_makes_them(client: apps.Client) -> None:
    assert (await ok(client, "POST", "/v1/sessions", {}, headers=ACME))["id"].startswith("acme-")
    for taken in (THERE, NOWHERE, "acme", "Acme-1"):
        status, reply = await apps.call(client, "POST", "/v1/sessions", {"id": taken}, headers=ACME)
        assert status == 403
        assert reply["error"]["param"] == "id"
        assert reply["error"]["message"] == "id: this key is limited to sessions whose ids start with 'acme-'"


async def test_feeds_of_all_are_feeds_of_ones_own(client: apps.Client) -> None:
    async with client.ws_connect("/v1/ws?prefix=", headers=ACME) as socket:
        heard = set()
        await ok(client, "POST", f"/v1/sessions/{THERE}/push", {"data": "x"}, headers=RIVAL)
        await ok(client, "POST", "/v1/sessions", {"id": "rival-later"}, headers=RIVAL)
        await ok(client, "POST", f"/v1/sessions/{THERE}/push", {"data": "x"}, headers=RIVAL)
        await client.delete("/v1/sessions/rival-later", headers=RIVAL)
        await ok(client, "POST", "/v1/sessions", {"id": "acme-later"}, headers=ACME)
        while "acme-later" not in heard:
            heard.add((await socket.receive_json(timeout=10))["data"]["session_id"])
        assert all(name.startswith("acme-") for name in heard)


async def test_sockets_push_to_ones_own_sessions_only(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "acme-pushed"}, headers=ACME)
    before = await state(client)
    async with client.ws_connect("/v1/ws", headers=ACME) as socket:
        replies = []
        for target in (THERE, NOWHERE, "acme-pushed"):
            await socket.send_json({"type": "push", "session_id": target, "data": "x"})
            replies.append(await socket.receive_json(timeout=10))
    assert [reply["type"] for reply in replies] == ["error", "error", "push_ack"]
    assert replies[0]["data"]["code"] == 404
    assert str(replies[0]).replace(THERE, NOWHERE) == str(replies[1])
    assert await state(client) == before


def test_handlers_take_sessions_from_what_is_visible() -> None:
    """Of the parts that serve clients, none asks the manager, which knows everybody's."""
    root = Path(__file__).parents[3] / "service"
    allowed = {root / "access" / "visible.py", root / "core.py", root / "app.py"}
    # Given what is visible, a feed looks up what it was told of, and a list leaves out what is not.
    views = {root / "api" / "requests.py", root / "delivery" / "feed.py", root / "api" / "sessions" / "routes.py"}
    asked = []
    for path in set(root.rglob("*.py")) - allowed:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("view", "views", "elsewhere") and path not in views:
                asked.append(f"{path.relative_to(root)}:{node.lineno}")
            if isinstance(node, ast.Attribute) and node.attr in ("get", "sessions", "create"):
                owner = node.value
                name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
                if name in ("manager", "_manager"):
                    asked.append(f"{path.relative_to(root)}:{node.lineno}")
    assert not asked
