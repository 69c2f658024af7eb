"""Old-style sessions: their life, what they show of themselves, and what goes into them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service import app
from service.api.legacy.kind import OLD_SHAPES, by_kind
from service.api.legacy.routes import OPERATIONS
from tests import apps
from tests.apps import call, core, ok, settled, until
from tests.engine.fast import DEFAULT_SYSTEM, FastEngine
from tests.service.api.legacy.kit import CANDLE, READING, id_of, init, push

HEAD = f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n<|im_start|>user\n"


async def test_health_is_a_status_alone(client: apps.Client) -> None:
    async with client.get("/v1/health") as response:
        assert (response.status, await response.read()) == (200, b"")


async def test_health_before_the_model_is_there_and_without_a_key(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    engine = FastEngine()
    async with apps.serving(redis, tmp_path, engine, api_key="secret") as client:
        engine.kill()
        await until(lambda: not core(client).up)
        async with client.get("/v1/health") as response:
            assert (response.status, await response.read()) == (503, b"")


async def test_a_session_is_created_with_all_it_asks_for(client: apps.Client) -> None:
    made = await ok(
        client,
        "POST",
        "/v1/sessions/init",
        {
            "type": "iot",
            "prompt": "You watch boilers.",
            "context": 512,
            "window_size": 1000,
            "flash": [{"query": "Hot?", "max_tokens": 900}, {"query": "Cold?"}],
        },
    )
    session = core(client).manager.get(made["session_id"])
    assert made == {
        "session_id": session.id,
        "type": "iot",
        "n_tokens": len(session.frame.head),
        "context": 4096,
        "window_size": 1000,
        "flash_queries": 2,
        "pos_max": len(session.frame.head) - 1,
    }
    assert (session.system, session.window.tokens, session.pre_decode) == ("You watch boilers.", 1000, False)
    limits = [(query.text, query.max_tokens) for query in core(client).flash.registry(session)]
    assert limits == [("Hot?", 256), ("Cold?", 32)]
    plain = await ok(client, "POST", "/v1/sessions/init", {"type": "ohlcv"})
    assert (plain["n_tokens"], plain["pos_max"], plain["window_size"], plain["flash_queries"]) == (0, -1, 0, 0)
    assert core(client).manager.get(plain["session_id"]).pre_decode, "candles have a fast path"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "type"),
        ({"type": "weather"}, "type"),
        ({"type": "iot", "context": 4097}, "context"),
        ({"type": "iot", "context": 0}, "context"),
        ({"type": "iot", "window_size": 1}, "window_size"),
        ({"type": "iot", "window_size": 4097}, "window_size"),
        ({"type": "iot", "prompt": ""}, "prompt"),
        ({"type": "iot", "prompt": "word " * 1000}, "prompt"),
        ({"type": "iot", "flash": [{"query": "Hot?"}, {"query": "Hot?"}]}, "flash"),
        ({"type": "iot", "flash": [{"query": f"{n}?"} for n in range(21)]}, "flash"),
        ({"type": "iot", "flash": [{"query": "Hot?", "choices": ["yes", "no"]}]}, "flash.0.choices"),
        ({"type": "iot", "flash": [{"query": "word " * 200}]}, "query"),
        ({"type": "iot", "mark_prefix": True}, "mark_prefix"),
    ],
)
async def test_what_cannot_be_created_is_refused_and_leaves_nothing(
    client: apps.Client, body: dict[str, Any], param: str
) -> None:
    status, reply = await call(client, "POST", "/v1/sessions/init", body)
    assert (status, reply["error"]["param"]) == (400, param), reply
    assert param.rpartition(".")[2] in reply["error"]["message"]
    assert core(client).manager.sessions() == []


async def test_the_list_has_both_kinds_in_both_shapes(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "new"})
    path = await init(client)
    await push(client, path)
    session = core(client).manager.get(id_of(path))
    listed = await ok(client, "GET", "/v1/sessions")
    assert {one["id"] for one in listed["data"]} == {"new", session.id}
    assert (listed["count"], listed["max_sessions"]) == (1, 256)
    assert listed["sessions"] == [
        {
            "session_id": session.id,
            "n_tokens": session.tokens,
            "context": 4096,
            "prefix_end": len(session.frame.head),
            "cache_usage": session.tokens / 4096,
            "created_at": int(session.created),
            "last_used_at": int(session.last_used),
            "in_use": False,
        }
    ]


async def test_the_state_tells_everything(client: apps.Client) -> None:
    path = await init(client)
    session = core(client).manager.get(id_of(path))
    session.last_used = 1000.0
    empty = await ok(client, "GET", f"{path}/state")
    assert (empty["n_tokens"], empty["pos_next"], empty["pos_max"], empty["context_text"]) == (0, 0, -1, "")
    assert (empty["last_used_at"], empty["data_region"]) == (1000, {"start": 0, "end": 0})
    assert session.last_used > 1000
    await push(client, path, READING, READING)
    state = await ok(client, "GET", f"{path}/state")
    text = state.pop("context_text")
    assert text.startswith(HEAD)
    assert text.removeprefix(HEAD).count("\n") == 2
    size, head = len(session.timeline), len(session.frame.head)
    assert state == {
        "session_id": session.id,
        "type": "iot",
        "n_tokens": size,
        "context": 4096,
        "pos_min": 0,
        "pos_max": size - 1,
        "pos_next": size,
        "prefix_end": head,
        "data_region": {"start": head, "end": size},
        "data_count": 2,
        "pending_prefill": 0,
        "cache_usage": size / 4096,
        "created_at": int(session.created),
        "last_used_at": state["last_used_at"],
        "in_use": False,
    }


async def test_what_waits_is_pending_everywhere(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    engine.ingest_gate.clear()
    first = await ok(client, "POST", f"{path}/stream/push", {"data": [READING]})
    await until(lambda: engine.calls)
    second = await ok(client, "POST", f"{path}/stream/push", {"data": [READING, READING]})
    assert (first["queue_size"], second["queue_size"], second["total_enqueued"]) == (1, 3, 3)
    status = await ok(client, "GET", f"{path}/stream/status")
    assert (status["streaming"]["queue_size"], status["statistics"]["items_processed"]) == (3, 0)
    assert (status["statistics"]["batches_processed"], status["statistics"]["avg_process_time_us"]) == (0, 0)
    assert status["data"]["initialized"] is False
    state = await ok(client, "GET", f"{path}/state")
    session = core(client).manager.get(id_of(path))
    assert state["pending_prefill"] == session.committed > 0
    engine.ingest_gate.set()
    await settled(client, session.id)
    status = await ok(client, "GET", f"{path}/stream/status")
    assert (status["streaming"]["queue_size"], status["statistics"]["items_processed"]) == (0, 3)
    assert (status["statistics"]["batches_processed"], status["data"]["initialized"]) == (2, True)


async def test_dropped_entries_are_not_waited_for(redis: Redis, tmp_path: Path, engine: FastEngine) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, queue_entries=2) as client:
        path = await init(client)
        engine.ingest_gate.clear()
        ack = await ok(client, "POST", f"{path}/stream/push", {"data": [READING] * 5})
        engine.ingest_gate.set()
        await settled(client, id_of(path))
        assert (ack["pushed"], ack["dropped"], ack["queue_size"], ack["queue_capacity"]) == (5, 3, 2, 2)
        assert (ack["total_enqueued"], ack["total_dropped"]) == (5, 3)
        status = await ok(client, "GET", f"{path}/stream/status")
        assert status["statistics"]["items_processed"] == 5
        assert status["data"]["data_count"] == 2


async def test_a_stream_that_can_read_no_more_says_so(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    engine.ingest_gate.clear()
    await ok(client, "POST", f"{path}/stream/push", {"data": [READING]})
    await until(lambda: engine.calls)
    engine.reading_error = ValueError("a bug")
    engine.ingest_gate.set()
    await until(lambda: core(client).manager.get(id_of(path)).failure)
    streaming = (await ok(client, "GET", f"{path}/stream/status"))["streaming"]
    assert (streaming["running"], streaming["error"]) == (False, True)


async def test_slots_are_the_parts_in_order(client: apps.Client) -> None:
    path = await init(client, prompt="You watch boilers.")
    head = len(core(client).manager.get(id_of(path)).frame.head)
    await push(client, path)
    await ok(client, "POST", f"{path}/mark_prefix")
    frozen = (await ok(client, "GET", f"{path}/slots"))["prefix_end"]
    assert frozen > head
    await push(client, path)
    await ok(client, "POST", f"{path}/generate", {"messages": [{"role": "user", "content": "Hot?"}]})
    await push(client, path)
    shown = await ok(client, "GET", f"{path}/slots")
    assert [slot["name"] for slot in shown["slots"]] == ["prefix", "data", "turn", "data"]
    assert [slot["end"] - slot["start"] for slot in shown["slots"]] == [slot["n_tokens"] for slot in shown["slots"]]
    ends = [0, *(slot["end"] for slot in shown["slots"])]
    assert ends[:-1] == [slot["start"] for slot in shown["slots"]]
    assert ends[-1] == shown["total_tokens"] == shown["pos_next"]
    assert shown["prefix_end"] == shown["data_region"]["start"] == frozen


async def test_appended_text_is_read_when_that_is_answered(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    added = await ok(client, "POST", f"{path}/append", {"text": "Größe: 5"})
    size = len(core(client).manager.get(id_of(path)).timeline)
    assert added == {"n_tokens_added": len("Größe: 5\n".encode()), "total_tokens": size, "pos_max": size - 1}
    assert (await ok(client, "GET", f"{path}/state"))["context_text"].endswith("Größe: 5\n")


@pytest.mark.parametrize("body", [None, {}])
async def test_marking_needs_no_body(client: apps.Client, body: dict[str, Any] | None) -> None:
    path = await init(client, window_size=400)
    await push(client, path)
    size = len(core(client).manager.get(id_of(path)).timeline)
    assert (await ok(client, "POST", f"{path}/mark_prefix", body))["prefix_end"] == size


async def test_marking_too_much_or_too_late_is_refused(client: apps.Client) -> None:
    path = await init(client, window_size=300)
    await push(client, path, *[READING] * 6)
    status, reply = await call(client, "POST", f"{path}/mark_prefix")
    assert (status, reply["error"]["param"]) == (400, "window_size")
    path = await init(client)
    await ok(client, "POST", f"{path}/generate", {"messages": [{"role": "user", "content": "Hot?"}]})
    await push(client, path)
    status, _ = await call(client, "POST", f"{path}/mark_prefix")
    assert status == 409


async def test_marking_what_is_never_read_names_no_field(client: apps.Client, engine: FastEngine) -> None:
    path = await init(client)
    engine.ingest_gate.clear()
    await ok(client, "POST", f"{path}/stream/push", {"data": [READING]})
    await until(lambda: engine.calls)
    engine.reading_error = ValueError("a bug")
    engine.ingest_gate.set()
    await until(lambda: core(client).manager.get(id_of(path)).failure)
    status, reply = await call(client, "POST", f"{path}/mark_prefix")
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (503, "session_ended", None)


@pytest.mark.parametrize("entry", [CANDLE, {"sid": "a"}, {**READING, "ts": 1}, 5])
async def test_entries_of_another_type_are_refused(client: apps.Client, entry: Any) -> None:
    path = await init(client)
    status, reply = await call(client, "POST", f"{path}/stream/push", {"data": [READING, entry]})
    assert status == 400
    assert reply["error"]["param"].startswith("data.1")
    assert core(client).manager.get(id_of(path)).queue.total_pushed == 0


async def test_sessions_of_the_new_kind_are_not_for_old_paths(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "new", "type": "iot"})
    for operation in OPERATIONS:
        if "{id}" not in operation.path:
            continue
        for session_id, expected in (("new", 400), ("gone", 404), ("no!id", 400)):
            status, reply = await call(client, operation.method, operation.path.replace("{id}", session_id))
            assert (status, reply["error"]["param"]) == (expected, "session_id")


def test_the_reference_says_where_the_shapes_depend_on_the_session() -> None:
    dispatching = [one for one in app.OPERATIONS if one.handler.__qualname__.startswith(by_kind.__name__)]
    assert len(dispatching) >= 6
    assert all(OLD_SHAPES in operation.description for operation in dispatching)


async def test_old_sessions_may_be_used_as_new_ones(client: apps.Client) -> None:
    path = await init(client)
    assert (await ok(client, "POST", f"{path}/push", {"data": ["as text", READING]}))["pushed"] == 2
    await settled(client, id_of(path))
    assert (await ok(client, "GET", path))["data_version"] == 1
    assert (await ok(client, "GET", f"{path}/stats"))["count"] == 1
    assert (await ok(client, "DELETE", path))["deleted"] is True
