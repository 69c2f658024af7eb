"""Flash Queries, events, sockets, completions and bound chat of the old generation."""

from __future__ import annotations

from typing import Any

import pytest

from tests import apps
from tests.apps import call, core, ok, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import counters
from tests.service.api.legacy.kit import READING, answered, id_of, init, push
from tests.service.api.talking import CHAT, COUNT, HEADER, MESSAGES, asking
from tests.service.delivery.sse import read


async def test_flash_queries_in_old_shapes(client: apps.Client) -> None:
    path = await init(client)
    made = await ok(client, "POST", f"{path}/flash", {"query": "Hot?", "max_tokens": 0})
    assert made == {"id": 1, "query": "Hot?", "max_tokens": 1, "n_tokens": 4, "total_flash_queries": 1}
    assert await ok(client, "GET", f"{path}/flash") == {
        "flash_queries": [
            {
                "id": 1,
                "query": "Hot?",
                "max_tokens": 1,
                "n_tokens": 4,
                "has_answer": False,
                "value": "",
                "data_version": 0,
                "confidence": 0.0,
                "evaluated_at": 0,
            }
        ],
        "count": 1,
        "current_data_version": 0,
    }
    await push(client, path)
    (query,) = await answered(client, path)
    assert (query["has_answer"], query["data_version"]) == (True, 1)
    assert (await ok(client, "GET", f"{path}/flash"))["current_data_version"] == 1
    assert query["value"]
    assert query["evaluated_at"] > 0
    for body in ({}, {"query": "Cold?", "choices": ["yes", "no"]}, {"query": ""}):
        assert (await call(client, "POST", f"{path}/flash", body))[0] == 400
    assert (await call(client, "POST", f"{path}/flash", {"query": "Hot?"}))[0] == 409
    assert await ok(client, "DELETE", f"{path}/flash/1") == {"success": True, "remaining": 0}
    assert (await call(client, "DELETE", f"{path}/flash/1"))[0] == 404
    assert (await call(client, "DELETE", f"{path}/flash/x"))[0] == 400


async def test_the_old_list_has_no_parameters(client: apps.Client) -> None:
    path = await init(client)
    for query, param in (("wait=1", "wait"), ("foo=", "foo")):
        status, reply = await call(client, "GET", f"{path}/flash?{query}")
        assert (status, reply["error"]["param"]) == (400, param)


async def test_events_in_old_shapes(client: apps.Client) -> None:
    path = await init(client, flash=[{"query": "Hot?", "max_tokens": 2}])
    await push(client, path)
    (query,) = await answered(client, path)
    async with client.get(f"{path}/events") as response:
        assert await read(response) == ("connected", {"data_version": 1, "flash_queries": 1})
        assert await read(response) == ("flash_ready", {name: query[name] for name in _ANSWER})
        await push(client, path, READING, READING)
        tokens = core(client).manager.get(id_of(path)).tokens
        assert await read(response) == ("data_updated", {"data_version": 2, "data_count": 3, "pos_next": tokens})
        for _ in range(2):
            kind, ready = await read(response)
            assert (kind, tuple(ready), ready["data_version"]) == ("flash_ready", _ANSWER, 2)
            assert isinstance(ready["evaluated_at"], int)
            await ok(client, "PATCH", f"{path}/flash/1", {"max_tokens": 3})
        await ok(client, "DELETE", path)
        assert await response.read() == b""


_ANSWER = ("id", "query", "value", "data_version", "confidence", "evaluated_at")


async def test_a_socket_in_old_shapes(client: apps.Client) -> None:
    path = await init(client)
    async with client.ws_connect(f"{path}/ws") as socket:
        assert await socket.receive_json(timeout=10) == {
            "type": "connected",
            "data": {"session_id": id_of(path), "data_version": 0, "flash_queries": 0, "streaming": True},
        }
        await socket.send_json({"type": "push", "data": [READING, READING]})
        assert await socket.receive_json(timeout=10) == {
            "type": "push_ack",
            "data": {"pushed": 2, "dropped": 0, "queue_size": 2},
        }
        updated = await socket.receive_json(timeout=10)
        tokens = core(client).manager.get(id_of(path)).tokens
        assert updated == {"type": "data_updated", "data": {"data_version": 1, "data_count": 2, "pos_next": tokens}}
        await socket.send_json({"type": "push", "data": [{"sid": 5}]})
        error = await socket.receive_json(timeout=10)
        assert (error["type"], error["data"]["code"]) == ("error", 400)
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json(timeout=10))["type"] == "pong"


async def test_a_completion(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("blue and wide")
    done = await ok(
        client, "POST", "/v1/completions", {"prompt": "The sky is", "max_tokens": 4, "stop": "u", "stream": False}
    )
    assert done["id"].startswith("cmpl-")
    assert done["created"] > 1_700_000_000
    assert (done["object"], done["model"]) == ("text_completion", "fast")
    assert done["choices"] == [{"text": "blue", "index": 0, "finish_reason": "length"}]
    usage = done["usage"]
    assert (usage["completion_tokens"], usage["total_tokens"]) == (4, usage["prompt_tokens"] + 4)
    assert counters(client).requests_ok == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({"prompt": "a", "stream": True}, "stream"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "word " * 1000}, "prompt"),
    ],
)
async def test_what_cannot_be_completed_is_refused(client: apps.Client, body: dict[str, Any], param: str) -> None:
    status, reply = await call(client, "POST", "/v1/completions", body)
    assert (status, reply["error"]["param"]) == (400, param)


@pytest.mark.parametrize("surface", [CHAT, MESSAGES])
async def test_a_body_may_name_an_old_session(client: apps.Client, surface: str) -> None:
    path = await init(client)
    session = core(client).manager.get(id_of(path))
    await ok(client, "POST", surface, asking(max_tokens=4, session_id=session.id))
    assert session.turns == 1


@pytest.mark.parametrize("surface", [CHAT, MESSAGES])
async def test_a_body_may_name_no_other(client: apps.Client, surface: str) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "new"})
    old = id_of(await init(client))
    for named, headers in (("new", {}), ("gone", {}), (old, {HEADER: "new"}), ("x" * 129, {}), (5, {})):
        status, reply = await call(client, "POST", surface, asking(max_tokens=4, session_id=named), headers=headers)
        assert status == 400
        assert reply["error"]["message"].startswith("session_id: ")
    for path in ("/v1/sessions/new/warm", COUNT):
        assert (await call(client, "POST", path, asking(session_id=old)))[0] == 400
    await until(lambda: core(client).manager.get("new").turns == core(client).manager.get(old).turns == 0)
