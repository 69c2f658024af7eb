"""Polling: entity tags, 304, long polls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from service.keys import METRICS
from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.engine.fast import FastEngine

SESSION = "/v1/sessions/s"
FLASH = f"{SESSION}/flash"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [{"query": "Hot?"}]})


async def push(client: apps.Client) -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
    await settled(client, "s")


async def tag(client: apps.Client, path: str = FLASH) -> str:
    async with client.get(path) as response:
        return response.headers["ETag"]


async def poll(client: apps.Client, path: str, tag: str, **options: Any) -> tuple[int, bytes, str]:
    """Status, body and new tag."""
    async with client.get(path, headers={"If-None-Match": tag}, **options) as response:
        return response.status, await response.read(), response.headers["ETag"]


async def waiting(client: apps.Client, path: str, **options: Any) -> asyncio.Task[tuple[int, Any]]:
    """A poll that has begun to wait."""
    task = asyncio.create_task(call(client, "GET", path, **options))
    await until(lambda: core(client).hub.subscribers or task.done())
    assert not task.done()
    return task


@pytest.mark.parametrize("path", [FLASH, f"{FLASH}/1"])
async def test_the_tag_is_weak_and_changes_with_the_state(client: apps.Client, path: str) -> None:
    async with client.get(path) as response:
        assert response.headers["Cache-Control"] == "no-cache"
        assert "Accept" in response.headers["Vary"]
        first = response.headers["ETag"]
    assert first.startswith('W/"')
    assert await tag(client, path) == first
    await push(client)
    await answered(client, "s")
    second = await tag(client, path)
    assert second != first
    assert (await poll(client, path, second))[:2] == (304, b"")
    assert (await poll(client, path, first))[0] == 200


@pytest.mark.parametrize("form", ["{weak}", "{strong}", '"other", {weak}', 'W/"a",{strong}, "b"', "*"])
async def test_an_unchanged_state_is_304_however_its_tag_is_given(client: apps.Client, form: str) -> None:
    weak = await tag(client)
    status, body, again = await poll(client, FLASH, form.format(weak=weak, strong=weak.removeprefix("W/")))
    assert (status, body, again) == (304, b"", weak)


@pytest.mark.parametrize("given", ['"other"', "garbage", '"unclosed', ""])
async def test_any_other_tag_gets_the_state(client: apps.Client, given: str) -> None:
    assert (await poll(client, FLASH, given))[0] == 200


async def test_json_and_msgpack_have_the_same_tag_and_content(client: apps.Client) -> None:
    await push(client)
    await answered(client, "s")
    expected, expected_tag = await ok(client, "GET", FLASH), await tag(client)
    async with client.get(FLASH, headers={"Accept": "application/msgpack"}) as response:
        assert (response.content_type, response.headers["Vary"]) == ("application/msgpack", "Accept")
        assert response.headers["ETag"] == expected_tag
        assert msgpack.unpackb(await response.read()) == expected


@pytest.mark.parametrize("path", [FLASH, f"{FLASH}/2"])
async def test_a_wait_ends_when_every_answer_is_fresh(client: apps.Client, path: str) -> None:
    await ok(client, "POST", FLASH, {"query": "Cold?"})
    poll = await waiting(client, f"{path}?wait=30")
    await push(client)
    status, reply = await poll
    assert status == 200
    assert [query["fresh"] for query in reply.get("data", [reply])] == [True] * (2 if path == FLASH else 1)


async def test_a_wait_for_fresh_answers_does_not_wait_if_they_are(client: apps.Client) -> None:
    await push(client)
    await answered(client, "s")
    assert (await ok(client, "GET", f"{FLASH}?wait=60"))["data"][0]["fresh"] is True
    assert (await ok(client, "GET", f"{FLASH}/1?wait=60"))["fresh"] is True


@pytest.mark.parametrize("path", [FLASH, f"{FLASH}/1"])
async def test_a_wait_with_a_tag_ends_at_the_first_change(client: apps.Client, engine: FastEngine, path: str) -> None:
    engine.generate_gate.clear()
    known = await tag(client, path)
    changed = await waiting(client, f"{path}?wait=30", headers={"If-None-Match": known})
    engine.generate_gate.set()
    await push(client)
    status, _ = await changed
    assert status == 200
    await answered(client, "s")
    known = await tag(client, path)
    changed = await waiting(client, f"{path}?wait=30", headers={"If-None-Match": known})
    engine.generate_gate.clear()
    await push(client)
    status, reply = await changed
    assert status == 200
    assert not any(query["fresh"] for query in reply.get("data", [reply])), "going stale is news"
    engine.generate_gate.set()


@pytest.mark.parametrize("path", [FLASH, f"{FLASH}/1"])
async def test_a_wait_without_news_ends_with_the_state_as_it_is(client: apps.Client, path: str) -> None:
    assert (await poll(client, f"{path}?wait=0.01", await tag(client, path)))[0] == 304
    reply = await ok(client, "GET", f"{path}?wait=0.01")
    assert not any(query["fresh"] for query in reply.get("data", [reply]))


@pytest.mark.parametrize("path", [f"{FLASH}?wait=30", f"{FLASH}/1?wait=30"])
async def test_a_wait_ends_with_404_when_the_session_is_deleted(client: apps.Client, path: str) -> None:
    poll = await waiting(client, path)
    await ok(client, "DELETE", SESSION)
    status, reply = await poll
    assert (status, reply["error"]["code"]) == (404, "session_not_found")


async def test_a_wait_ends_when_the_server_stops(client: apps.Client) -> None:
    poll = await waiting(client, f"{FLASH}?wait=30")
    core(client).close_subscriptions()
    status, reply = await poll
    assert (status, reply["error"]["code"]) == (503, "wait_interrupted")


async def test_a_client_that_leaves_ends_its_wait(client: apps.Client) -> None:
    poll = await waiting(client, f"{FLASH}?wait=30")
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)
    await until(lambda: not core(client).hub.subscribers)
    await until(lambda: core(client).manager.get("s").idle)


async def test_a_list_changes_when_a_query_comes_or_goes(client: apps.Client) -> None:
    changed = await waiting(client, f"{FLASH}?wait=5", headers={"If-None-Match": await tag(client)})
    await ok(client, "POST", FLASH, {"query": "Cold?"})
    status, reply = await changed
    assert (status, len(reply["data"])) == (200, 2)


async def test_after_reads_what_was_written(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    ack = await ok(client, "POST", f"{SESSION}/push", {"data": ["a", "b"]})
    poll = asyncio.create_task(ok(client, "GET", f"{FLASH}?after={ack['total_pushed']}&wait=30"))
    await until(lambda: client.app[METRICS].connections)
    engine.ingest_gate.set()
    reply = await poll
    assert (reply["data_version"], reply["data"][0]["data_version"]) == (1, 1)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("wait=inf", "wait"),
        ("wait=nan", "wait"),
        ("wait=soon", "wait"),
        ("wait=1&wait=2", "wait"),
        ("after=1", "after"),
        ("after=-1", "after"),
        ("after=1.5", "after"),
        (f"after={2**63}", "after"),
        ("timeout=1", "timeout"),
    ],
)
async def test_bad_queries_are_refused_by_name(client: apps.Client, query: str, param: str) -> None:
    for path in (FLASH, f"{FLASH}/1"):
        status, reply = await call(client, "GET", f"{path}?{query}")
        assert (status, reply["error"]["param"]) == (400, param)


async def test_after_is_bounded(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, wait_seconds_max=0.01) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        engine.ingest_gate.clear()
        await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
        status, reply = await call(client, "GET", f"{FLASH}?after=1")
        assert (status, reply["error"]["code"]) == (503, "not_resident_in_time")
