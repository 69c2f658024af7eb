"""Bad input to every endpoint is refused with a 4xx that names the field, never a 5xx."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from yarl import URL

from service.api.legacy import routes as legacy
from service.api.legacy.kind import LABELS
from service.app import OPERATIONS
from streams.entries import BUILTIN
from streams.store import connect
from tests import apps

SESSION = "hostile"
# Made as the old generation makes them.
OLD = "hostile-old"

# Integers and floats of every size, NaN and infinities, any text JSON can spell, nesting.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)

VALID: dict[str, dict[str, Any]] = {
    "/v1/sessions": {"system": "You read sensors."},
    "/v1/sessions/{id}/push": {"data": "one line"},
    "/v1/sessions/{id}/generate": {"prompt": "What?", "max_tokens": 2},
    "/v1/sessions/{id}/flash": {"query": "Hot?", "max_tokens": 2},
    "/v1/sessions/{id}/flash/{fid}": {"max_tokens": 2},
    "/v1/sessions/{id}/warm": {"messages": [{"role": "user", "content": "What?"}]},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 2},
    "/v1/messages": {"messages": [{"role": "user", "content": "What?"}], "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "What?"}]},
    "/v1/sessions/init": {"type": "ohlcv", "prompt": "You read candles."},
    "/v1/sessions/{id}/append": {"text": "one line"},
    "/v1/sessions/{id}/mark_prefix": {},
    "/v1/sessions/{id}/stream/push": {"data": [{"o": 1, "h": 2, "l": 0.5, "c": 1.5, "v": 100}]},
    "/v1/completions": {"prompt": "What?", "max_tokens": 2},
}
# Nothing is required in these, so no body and few bytes are a body.
EMPTY = {"/v1/sessions", "/v1/sessions/{id}/mark_prefix"}
WITH_BODY = [operation for operation in OPERATIONS if operation.request is not None]
WITH_FIELDS = [operation for operation in WITH_BODY if operation.request.model_fields]
ROUTES = sorted({operation.template for operation in OPERATIONS})

fuzz = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
async def client(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[apps.Client]:
    data_dir: Path = tmp_path_factory.mktemp("hostile")
    async with connect(redis_url) as redis, apps.serving(redis, data_dir, session_idle_seconds=3600) as client:
        await apps.ok(client, "POST", "/v1/sessions", {"id": SESSION})
        await apps.ok(client, "POST", f"/v1/sessions/{SESSION}/push", {"data": ["a", "b"]})
        assert (await apps.ok(client, "POST", f"/v1/sessions/{SESSION}/flash", {"query": "Which?"}))["id"] == 1
        core = apps.core(client)
        await core.manager.create(OLD, type=BUILTIN["ohlcv"], labels=LABELS)
        yield client


def path_of(template: str) -> str:
    old = template in [operation.template for operation in legacy.OPERATIONS]
    return template.replace("{id}", OLD if old else SESSION).replace("{fid}", "1")


async def send(
    client: apps.Client, method: str, path: str | URL, body: bytes, content_type: str
) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": content_type} if content_type else {}
    async with client.request(method, path, data=body, headers=headers, skip_auto_headers=["Content-Type"]) as response:
        raw = await response.read()
        assert response.status < 500, (response.status, raw, path, body)
        if method == "HEAD" or response.content_type != "application/json":
            return response.status, {}
        reply = json.loads(raw)
    if response.status >= 400:
        error = reply["error"]
        assert error["message"]
        assert error["type"]
        assert reply["request_id"] if str(path).startswith("/v1/messages") else error["code"]
    if method == "POST":
        await undo(client, reply)
    return response.status, reply


def fields_of(operation: Any) -> list[str]:
    """The fields of a body as clients spell them."""
    return sorted(item.alias or name for name, item in operation.request.model_fields.items())


def names(reply: dict[str, Any], field: str) -> bool:
    """Whether a refusal is about ``field``, or about the body before there are fields (NaN and such)."""
    error = reply["error"]
    if "param" in error:
        return error["param"] in (field, "body") or error["param"].startswith(f"{field}.")
    return error["message"].removeprefix("`").startswith((field, "the body", "body"))


async def undo(client: apps.Client, reply: Any) -> None:
    """Keep limits from hiding what lies behind them."""
    if not isinstance(reply, dict):
        return
    if reply.get("object") == "session" and reply["id"] != SESSION:
        await client.delete(f"/v1/sessions/{reply['id']}")
    if "session_id" in reply and reply.get("type") == "ohlcv":
        await client.delete(f"/v1/sessions/{reply['session_id']}")
    if reply.get("object") == "flash_query":
        await client.delete(f"/v1/sessions/{SESSION}/flash/{reply['id']}")


def test_every_endpoint_with_a_body_is_covered() -> None:
    assert {operation.template for operation in WITH_BODY} == set(VALID)


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.template)
@given(body=values)
@fuzz
async def test_any_json(client: apps.Client, operation: Any, body: Any) -> None:
    status, _ = await send(
        client, operation.method, path_of(operation.path), json.dumps(body).encode(), "application/json"
    )
    if not isinstance(body, dict):
        assert status == 400


@pytest.mark.parametrize("operation", WITH_FIELDS, ids=lambda operation: operation.template)
@given(data=st.data())
@fuzz
async def test_one_wrong_field_is_named(client: apps.Client, operation: Any, data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(fields_of(operation)))
    body = VALID[operation.template] | {field: data.draw(values)}
    packed = data.draw(st.booleans())
    try:
        raw = msgpack.packb(body) if packed else json.dumps(body).encode()
    except (OverflowError, ValueError, UnicodeEncodeError):
        packed, raw = False, json.dumps(body).encode()
    status, reply = await send(
        client, operation.method, path_of(operation.path), raw, "application/msgpack" if packed else "application/json"
    )
    if status == 400:
        assert names(reply, field), reply


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.template)
@given(name=st.text(min_size=1, max_size=20), value=values)
@fuzz
async def test_an_unknown_field_is_named(client: apps.Client, operation: Any, name: str, value: Any) -> None:
    if name in fields_of(operation):
        return
    body = VALID[operation.template] | {name: value}
    try:
        raw = json.dumps(body, allow_nan=False).encode()
    except ValueError:
        return
    status, reply = await send(client, operation.method, path_of(operation.path), raw, "application/json")
    assert status == 400
    assert names(reply, name)


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.template)
@given(
    body=st.binary(max_size=60),
    content_type=st.sampled_from(
        ["application/json", "application/msgpack", "text/plain", "", "application/x-www-form-urlencoded", "a/b/c; q"]
    ),
)
@example(body=b"[" * 100_000, content_type="application/json")
@example(body=b'{"a":' * 50_000, content_type="application/json")
@example(body=b"\x91" * 50_000, content_type="application/msgpack")
@example(body=b'{"data":"\\ud800"}', content_type="application/json")
@example(body=b'{"data":"\xff"}', content_type="application/json")
@example(body=b'{"max_tokens":1' + b"0" * 5000 + b"}", content_type="application/json")
@fuzz
async def test_any_bytes(client: apps.Client, operation: Any, body: bytes, content_type: str) -> None:
    status, _ = await send(client, operation.method, path_of(operation.path), body, content_type)
    assert status >= 400 or operation.template in EMPTY


@given(
    template=st.sampled_from(ROUTES),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD"]),
    segment=st.text(min_size=1, max_size=30),
)
@fuzz
async def test_any_path(client: apps.Client, template: str, method: str, segment: str) -> None:
    path = template.replace("{fid}", segment)
    if path.endswith(("/events", "/ws")) or "{id}" in path:
        path = path.replace("{id}", segment)
    if segment in (".", "..") or "/" in segment:
        return
    await send(client, method, URL.build(path=path), b"", "")


@given(
    path=st.sampled_from([f"/v1/sessions/{SESSION}/flash{rest}" for rest in ("", "/1", "/1/history")]),
    query=st.dictionaries(
        st.sampled_from(["wait", "after", "limit", "since", "x", ""]),
        st.text(max_size=12) | st.just("1e999"),
        max_size=3,
    ),
    etag=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12),
)
@fuzz
async def test_any_query_string(client: apps.Client, path: str, query: dict[str, str], etag: str) -> None:
    if query.get("wait", "").strip().isdigit():
        query["wait"] = "0"
    async with client.get(path, params=query, headers={"If-None-Match": etag}) as response:
        assert response.status < 500, await response.text()


@given(
    path=st.sampled_from(["/v1/events", "/v1/ws"]),
    query=st.lists(
        st.tuples(st.sampled_from(["session", "prefix", "x", ""]), st.text(max_size=12) | st.just(SESSION)), max_size=4
    ),
)
@fuzz
async def test_any_selection_of_sessions(client: apps.Client, path: str, query: list[tuple[str, str]]) -> None:
    async with client.get(path, params=query) as response:
        assert response.status in (200, 400, 404), await response.text()


@pytest.mark.parametrize("path", [f"/v1/sessions/{SESSION}/ws", f"/v1/ws?session={SESSION}"])
@given(message=values, binary=st.binary(max_size=30), as_binary=st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_websocket_message(
    client: apps.Client, path: str, message: Any, binary: bytes, as_binary: bool
) -> None:
    async with client.ws_connect(path) as socket:
        while (await socket.receive_json())["type"] == "flash_ready":
            pass
        if as_binary:
            await socket.send_bytes(binary)
        else:
            await socket.send_str(json.dumps(message))
        await socket.send_json({"type": "ping"})
        replies: list[Any] = []
        while not replies or replies[-1]["type"] != "pong":
            replies.append(await socket.receive_json(timeout=10))
    errors = [reply["data"] for reply in replies if reply["type"] == "error"]
    assert all(400 <= error["code"] < 500 for error in errors)
