"""Sessions over HTTP: what they show at every moment, their limits, and their end."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from streams import manager
from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.engine.fast import FastEngine

HEAD = "<|im_start|>system\nYou are a helpful AI assistant.<|im_end|>\n<|im_start|>user\n"


async def create(client: apps.Client, **body: Any) -> str:
    session_id: str = (await ok(client, "POST", "/v1/sessions", body))["id"]
    return session_id


def head(engine: FastEngine) -> int:
    """Tokens of the template before the data."""
    return len(engine.tokenizer.encode_markup(HEAD))


# What a session shows


async def test_a_new_session_shows_every_field(client: apps.Client) -> None:
    before = int(time.time())
    session = await ok(client, "POST", "/v1/sessions", {"id": "made"})
    created = session.pop("created")
    assert before <= created <= time.time()
    assert session == {
        "id": "made",
        "object": "session",
        "last_used": created,
        "tokens": 0,
        "kv_tokens": 0,
        "residency": "resident",
        "busy": False,
        "turns": 0,
        "data_end": 0,
        "data_version": 0,
        "pending": 0,
        "pre_decode": False,
        "ready": False,
        "evicted": 0,
    }
    assert (await ok(client, "GET", "/v1/sessions/made")) == {**session, "created": created}


@pytest.mark.parametrize("options", [{}, {"data": b"", "headers": {"Content-Type": "application/json"}}])
async def test_the_body_may_be_left_out(client: apps.Client, options: dict[str, Any]) -> None:
    async with client.post("/v1/sessions", **options) as response:
        assert response.status == 200
        assert (await response.json())["id"].startswith("sess_")


async def test_markers_tell_how_far_reading_has_come(client: apps.Client, engine: FastEngine) -> None:
    path = f"/v1/sessions/{await create(client)}"
    engine.ingest_gate.clear()
    await ok(client, "POST", f"{path}/push", {"data": ["a", "bb"]})
    await until(lambda: engine.calls)
    length = head(engine) + len("a\nbb\n")

    def markers(session: dict[str, Any]) -> tuple[int, ...]:
        return tuple(session[name] for name in ("tokens", "data_end", "kv_tokens", "data_version", "pending"))

    assert markers(await ok(client, "GET", path)) == (length, length, 0, 0, 2)
    await ok(client, "POST", f"{path}/push", {"data": "ccc"})
    assert markers(await ok(client, "GET", path)) == (length, length, 0, 0, 3), "what is queued has no tokens yet"
    engine.ingest_gate.set()
    await settled(client, path.split("/")[-1])
    length += len("ccc\n")
    assert markers(await ok(client, "GET", path)) == (length, length, length, 2, 0)


async def test_it_is_busy_while_a_question_runs(client: apps.Client, engine: FastEngine) -> None:
    path = f"/v1/sessions/{await create(client)}"
    engine.generate_gate.clear()
    question = asyncio.create_task(ok(client, "POST", f"{path}/generate", {"prompt": "What?"}))
    await until(lambda: engine.running)
    assert (await ok(client, "GET", path))["busy"] is True
    engine.generate_gate.set()
    await question
    session = await ok(client, "GET", path)
    assert (session["busy"], session["turns"], session["tokens"]) == (False, 0, 0), "a question leaves nothing behind"


async def test_the_list_is_by_creation_to_the_millisecond_then_by_id(client: apps.Client) -> None:
    for session_id, created in (("z", 100.0012), ("a", 100.002), ("m", 100.0018), ("b", 99.9)):
        await create(client, id=session_id)
        core(client).manager.get(session_id).created = created
    listed = await ok(client, "GET", "/v1/sessions")
    assert listed["object"] == "list"
    assert [session["id"] for session in listed["data"]] == ["b", "m", "z", "a"]


# The idle clock


async def test_getting_tells_the_last_use_before_it(client: apps.Client) -> None:
    session_id = await create(client)
    session = core(client).manager.get(session_id)
    session.last_used = 1000.0
    (listed,) = (await ok(client, "GET", "/v1/sessions"))["data"]
    assert listed["last_used"] == 1000
    assert (await ok(client, "GET", f"/v1/sessions/{session_id}"))["last_used"] == 1000, "listing is no use"
    assert (await ok(client, "GET", f"/v1/sessions/{session_id}"))["last_used"] > 1000


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "push", {"data": "x"}),
        ("POST", "generate", {"prompt": "What?"}),
        ("POST", "flash", {"query": "Hot?"}),
        ("GET", "flash", None),
        ("DELETE", "flash/1", None),
    ],
)
async def test_every_use_restarts_the_idle_clock(client: apps.Client, method: str, path: str, body: Any) -> None:
    session_id = await create(client, flash=[{"query": "Cold?"}])
    session = core(client).manager.get(session_id)
    session.last_used = 1000.0
    await ok(client, method, f"/v1/sessions/{session_id}/{path}", body)
    assert session.last_used > 1000


class Deletions:
    """Listens for deleted sessions."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def created(self, session: Any) -> None: ...

    def settled(self, session: Any, tokens: int, seconds: float) -> None: ...

    async def deleted(self, session: Any) -> None:
        self.ids.append(session.id)


async def test_unused_sessions_expire_unless_somebody_watches(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, session_idle_seconds=1) as client:
        deletions = Deletions()
        core(client).manager.listen(deletions)
        for session_id in ("watched", "socketed", "forgotten"):
            await create(client, id=session_id)
        async with (
            client.get("/v1/sessions/watched/events") as events,
            client.ws_connect("/v1/sessions/socketed/ws") as socket,
        ):
            await events.content.readuntil(b"\n\n")
            await socket.receive()
            for session in core(client).manager.sessions():
                session.last_used = 0.0
            await until(lambda: deletions.ids)
            assert deletions.ids == ["forgotten"]
            assert (await call(client, "GET", "/v1/sessions/forgotten"))[0] == 404
        await until(lambda: all(session.idle for session in core(client).manager.sessions()))
        for session in core(client).manager.sessions():
            session.last_used = 0.0
        await until(lambda: len(deletions.ids) == 3)


async def test_what_waits_to_be_read_keeps_a_session(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, session_idle_seconds=1) as client:
        deletions = Deletions()
        core(client).manager.listen(deletions)
        engine.ingest_gate.clear()
        for session_id in ("reading", "forgotten"):
            await create(client, id=session_id)
        await ok(client, "POST", "/v1/sessions/reading/push", {"data": "x"})
        for session in core(client).manager.sessions():
            session.last_used = 0.0
        await until(lambda: deletions.ids)
        assert deletions.ids == ["forgotten"]
        engine.ingest_gate.set()
        await until(lambda: len(deletions.ids) == 2)


# System prompt and queries at creation


async def test_a_system_prompt_is_read_at_once(client: apps.Client, engine: FastEngine) -> None:
    session_id = await create(client, system="You read <|im_end|> sensors.")
    session = core(client).manager.get(session_id)
    await until(lambda: session.kv_tokens)
    assert session.kv_tokens == session.tokens == session.data_end
    assert (session.version, session.pending) == (0, 0)
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "one"})
    await settled(client, session_id)
    marker = list(b"<|im_end|>")
    text = engine.tokenizer.decode(session.timeline.tokens)
    assert text.endswith("user\none\n")
    tokens = session.timeline.tokens
    assert any(tokens[at : at + len(marker)] == marker for at in range(len(tokens))), "it is text only"


async def test_queries_can_come_with_the_session(client: apps.Client) -> None:
    session_id = await create(
        client, flash=[{"query": "Hot?", "max_tokens": 1}, {"query": "Up?", "choices": ["yes", "no"]}]
    )
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    first, second = await answered(client, session_id)
    assert (first["id"], first["query"], first["max_tokens"]) == (1, "Hot?", 1)
    assert second["value"] in ("yes", "no")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"flash": [{"query": "fine"}, {"query": "x" * 600}]}, "query"),
        ({"flash": [{"query": "same"}, {"query": "same"}]}, "flash"),
        ({"flash": [{"query": f"q{n}"} for n in range(21)]}, "flash"),
        ({"flash": [{"query": "Up?", "choices": ["yes"]}]}, "flash.0.choices"),
        ({"system": "x" * 4000}, "system"),
        ({"system": ""}, "system"),
        ({"pre_decode": 1}, "pre_decode"),
        ({"window": 100}, "window"),
        ({"id": "no spaces"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"id": "new\n"}, "id"),
    ],
)
async def test_a_refused_creation_leaves_no_session_behind(
    client: apps.Client, body: dict[str, Any], param: str
) -> None:
    status, reply = await call(client, "POST", "/v1/sessions", {"id": "new", **body})
    assert (status, reply["error"]["param"]) == (400, param)
    assert (await ok(client, "GET", "/v1/sessions"))["data"] == []
    await create(client, id="new")


# Limits


async def test_ids_and_places_are_limited_until_one_is_deleted(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, max_sessions=2) as client:
        await create(client, id="a")
        assert await refusal(client, "POST", "/v1/sessions", {"id": "a"}) == (409, "session_exists")
        await create(client, id="b")
        assert await refusal(client, "POST", "/v1/sessions", {"id": "c"}) == (409, "session_limit")
        deleted = await ok(client, "DELETE", "/v1/sessions/a")
        assert deleted == {"id": "a", "object": "session.deleted", "deleted": True}
        await create(client, id="a")


async def refusal(client: apps.Client, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Status and code of a request that must be refused."""
    status, reply = await call(client, method, path, body)
    return status, reply["error"]["code"]


PATHS = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("POST", "/push", {"data": "x"}),
    ("POST", "/generate", {"prompt": "x"}),
    ("POST", "/flash", {"query": "x"}),
    ("GET", "/flash", None),
    ("GET", "/flash/1", None),
    ("DELETE", "/flash/1", None),
    ("GET", "/events", None),
    ("GET", "/ws", None),
]


@pytest.mark.parametrize(("method", "path", "body"), PATHS)
async def test_unknown_sessions_are_404_and_malformed_ids_400(
    client: apps.Client, method: str, path: str, body: Any
) -> None:
    assert await refusal(client, method, f"/v1/sessions/nowhere{path}", body) == (404, "session_not_found")
    for session_id in ("no%20spaces", "x" * 129, "nowhere%0A"):
        status, reply = await call(client, method, f"/v1/sessions/{session_id}{path}", body)
        assert (status, reply["error"]["param"]) == (400, "session_id"), session_id


# Deletion


async def test_deleting_waits_for_a_question_and_refuses_if_it_goes_on(
    client: apps.Client, engine: FastEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/sessions/{await create(client)}"
    engine.generate_gate.clear()
    question = asyncio.create_task(ok(client, "POST", f"{path}/generate", {"prompt": "What?"}))
    await until(lambda: engine.running)
    with monkeypatch.context() as patched:
        patched.setattr(manager, "_DELETE_SECONDS", 0.0)
        assert await refusal(client, "DELETE", path) == (409, "session_busy")
    deletion = asyncio.create_task(ok(client, "DELETE", path))
    await ok(client, "GET", path)
    engine.generate_gate.set()
    assert (await question)["finish_reason"] == "stop"
    assert (await deletion)["deleted"] is True
    assert await refusal(client, "GET", path) == (404, "session_not_found")


async def test_deleting_ends_the_reading_and_frees_the_cache(client: apps.Client, engine: FastEngine) -> None:
    session_id = await create(client)
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    await settled(client, session_id)
    engine.ingest_gate.clear()
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "y"})
    await until(lambda: len(engine.calls) == 2)
    health = await ok(client, "GET", "/health")
    assert (health["sessions"], health["kv_pages_free"] < health["kv_pages_total"]) == (1, True)
    await ok(client, "DELETE", f"/v1/sessions/{session_id}")
    assert not engine.holds
    health = await ok(client, "GET", "/health")
    assert (health["sessions"], health["kv_pages_free"]) == (0, health["kv_pages_total"])


async def test_a_name_used_again_is_a_new_session(client: apps.Client) -> None:
    await create(client, id="again", flash=[{"query": "Hot?"}])
    await ok(client, "POST", "/v1/sessions/again/push", {"data": "x"})
    await answered(client, "again")
    await ok(client, "DELETE", "/v1/sessions/again")
    await create(client, id="again")
    assert await ok(client, "GET", "/v1/sessions/again/flash") == {"object": "list", "data": [], "data_version": 0}
    query = await ok(client, "POST", "/v1/sessions/again/flash", {"query": "Hot?"})
    assert (query["id"], "value" in query) == (1, False)
