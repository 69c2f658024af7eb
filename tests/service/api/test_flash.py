"""Flash Queries over HTTP: registered, listed, answered, deleted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from streams.engine.base import Priority
from tests import apps
from tests.apps import answered, call, ok, settled, until
from tests.engine.fast import FastEngine

SESSION = "/v1/sessions/s"
FLASH = f"{SESSION}/flash"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client, data: str = "x") -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": data})
    await settled(client, "s")


async def test_a_query_has_no_answer_until_there_is_data(client: apps.Client) -> None:
    query = await ok(client, "POST", FLASH, {"query": "Größer?"})
    expected = {
        "id": 1,
        "object": "flash_query",
        "query": "Größer?",
        "max_tokens": 32,
        "tokens": len("Größer?".encode()),
        "fresh": False,
    }
    assert query == expected
    assert await ok(client, "GET", f"{FLASH}/1") == expected
    assert await ok(client, "GET", FLASH) == {"object": "list", "data": [expected], "data_version": 0}
    before = int(time.time())
    await push(client)
    (answer,) = await answered(client, "s")
    assert answer.pop("value")
    assert answer.pop("confidence") >= 0
    assert before <= answer.pop("evaluated_at") <= time.time()
    assert answer == {**expected, "fresh": True, "data_version": 1}
    assert (await ok(client, "GET", f"{FLASH}/1"))["fresh"] is True
    assert (await ok(client, "GET", FLASH))["data_version"] == 1


async def test_a_query_is_evaluated_when_registered_if_there_is_data(client: apps.Client) -> None:
    await push(client)
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    (answer,) = await answered(client, "s")
    assert answer["data_version"] == 1


async def test_every_batch_is_answered_anew_and_once(client: apps.Client, engine: FastEngine) -> None:
    for number in range(3):
        await ok(client, "POST", FLASH, {"query": f"Question {number}?"})
    for version in (1, 2):
        engine.calls.clear()
        await push(client)
        assert {query["data_version"] for query in await answered(client, "s")} == {version}
        assert sum(call.priority == Priority.FLASH for call in engine.calls) == 3


async def test_an_answer_is_stale_until_it_is_evaluated_again(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    await push(client)
    (first,) = await answered(client, "s")
    engine.generate_gate.clear()
    await push(client)
    assert await ok(client, "GET", f"{FLASH}/1") == {**first, "fresh": False}
    engine.generate_gate.set()
    (second,) = await answered(client, "s")
    assert second["data_version"] == 2


@pytest.mark.parametrize(
    ("given", "used"), [(-(2**63), 1), (0, 1), (1, 1), (16, 16), (256, 256), (257, 256), (2**63 - 1, 256)]
)
async def test_max_tokens_is_clamped_never_refused(client: apps.Client, given: int, used: int) -> None:
    assert (await ok(client, "POST", FLASH, {"query": "Hot?", "max_tokens": given}))["max_tokens"] == used


async def test_max_tokens_bounds_the_answer(client: apps.Client) -> None:
    await ok(client, "POST", FLASH, {"query": "Hot?", "max_tokens": 1})
    await push(client)
    (answer,) = await answered(client, "s")
    assert len(answer["value"]) == 1


async def test_the_same_text_twice_is_409(client: apps.Client) -> None:
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    for body in ({"query": "Hot?"}, {"query": "Hot?", "max_tokens": 1}, {"query": "Hot?", "choices": ["a", "b"]}):
        status, reply = await call(client, "POST", FLASH, body)
        assert (status, reply["error"]["code"]) == (409, "flash_query_exists")
    await ok(client, "POST", FLASH, {"query": "Hot? "})


async def test_the_twenty_first_is_409_until_one_is_deleted(client: apps.Client) -> None:
    for number in range(20):
        assert (await ok(client, "POST", FLASH, {"query": f"Question {number}?"}))["id"] == number + 1
    status, reply = await call(client, "POST", FLASH, {"query": "One more?"})
    assert (status, reply["error"]["code"]) == (409, "flash_query_limit")
    assert (await ok(client, "DELETE", f"{FLASH}/20"))["remaining"] == 19
    assert (await ok(client, "POST", FLASH, {"query": "One more?"}))["id"] == 21, "numbers are never used again"


async def test_a_deleted_query_is_gone_with_its_answer(client: apps.Client) -> None:
    for query in ("Hot?", "Cold?"):
        await ok(client, "POST", FLASH, {"query": query})
    await push(client)
    await answered(client, "s")
    deleted = await ok(client, "DELETE", f"{FLASH}/1")
    assert deleted == {"id": 1, "object": "flash_query.deleted", "deleted": True, "remaining": 1}
    assert [query["id"] for query in (await ok(client, "GET", FLASH))["data"]] == [2]
    for method in ("GET", "DELETE"):
        status, reply = await call(client, method, f"{FLASH}/1")
        assert (status, reply["error"]["code"]) == (404, "flash_query_not_found")
    again = await ok(client, "POST", FLASH, {"query": "Hot?"})
    assert (again["id"], again["fresh"]) == (3, False)


async def test_a_query_deleted_while_it_is_evaluated_gets_no_answer(client: apps.Client, engine: FastEngine) -> None:
    engine.generate_gate.clear()
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    await push(client)
    await until(lambda: engine.running)
    await ok(client, "DELETE", f"{FLASH}/1")
    engine.generate_gate.set()
    await ok(client, "POST", FLASH, {"query": "Cold?"})
    (answer,) = await answered(client, "s")
    assert answer["id"] == 2


async def test_choices_bind_the_answer_and_tell_their_probabilities(client: apps.Client) -> None:
    choices = ["up", "upper", "down"]
    query = await ok(client, "POST", FLASH, {"query": "Trend?", "choices": choices})
    assert query["choices"] == choices
    await push(client)
    (answer,) = await answered(client, "s")
    probabilities = answer["probabilities"]
    assert list(probabilities) == choices
    assert answer["value"] == max(probabilities, key=probabilities.get)
    assert answer["mass"] == pytest.approx(sum(probabilities.values()))
    assert 0 < answer["mass"] <= 1
    assert answer["confidence"] >= 0


async def test_a_schema_binds_the_answer(client: apps.Client) -> None:
    schema = {"type": "object", "properties": {"up": {"type": "boolean", "default": None}}, "required": ["up"]}
    query = await ok(client, "POST", FLASH, {"query": "Trend?", "schema": schema})
    assert (query["schema"], query["max_tokens"]) == (schema, 256)
    await push(client)
    (answer,) = await answered(client, "s")
    assert json.loads(answer["value"]) == {"up": False}
    assert answer["schema"] == schema


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": "Hot?", "schema": []}, "schema"),
        ({"query": "Hot?", "schema": {"multipleOf": 3}}, "schema"),
        ({"query": "Hot?", "schema": {}, "choices": ["a", "b"]}, "schema"),
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "x" * 600}, "query"),
        ({"query": 1}, "query"),
        ({"query": "Hot?", "max_tokens": 1.5}, "max_tokens"),
        ({"query": "Hot?", "max_tokens": "8"}, "max_tokens"),
        ({"query": "Hot?", "max_tokens": 2**63}, "max_tokens"),
        ({"query": "Hot?", "choices": []}, "choices"),
        ({"query": "Hot?", "choices": ["yes"]}, "choices"),
        ({"query": "Hot?", "choices": ["yes", "yes"]}, "choices"),
        ({"query": "Hot?", "choices": ["yes", ""]}, "choices"),
        ({"query": "Hot?", "choices": ["yes", "x" * 129]}, "choices"),
        ({"query": "Hot?", "choices": ["yes", 1]}, "choices.1"),
        ({"query": "Hot?", "choices": [str(number) for number in range(33)]}, "choices"),
        ({"query": "Hot?", "fast_answer": [""]}, "fast_answer.0"),
        ({"query": "Hot?", "gap_threshold": -1}, "gap_threshold"),
        ({"query": "Hot?", "with_stats": "all"}, "with_stats"),
        ({"query": "Hot?", "with_stats": 1}, "with_stats"),
        ({"query": "Hot?", "every": 0}, "every"),
        ({"query": "Hot?", "every": 2**63}, "every"),
        ({"query": "Hot?", "min_interval": 0}, "min_interval"),
        ({"query": "Hot?", "min_interval": 86_401}, "min_interval"),
        ({"query": "Hot?", "when": ""}, "when"),
        ({"query": "Hot?", "when": "count"}, "when"),
        ({"query": "Hot?", "when": "count.__class__() > 1"}, "when"),
        ({"query": "Hot?", "when": "change_pct > 1"}, "when"),
        ({"query": "Hot?", "when": "count > 1" + " " * 500}, "when"),
        ({"query": "Hot?", "temperature": 0}, "temperature"),
    ],
)
async def test_bad_queries_are_refused_by_field(client: apps.Client, body: dict[str, Any], param: str) -> None:
    status, reply = await call(client, "POST", FLASH, body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert (await ok(client, "GET", FLASH))["data"] == []


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "0x1", "9999999999", "%D9%A1", "1%0A"])
async def test_ids_are_whole_numbers(client: apps.Client, number: str) -> None:
    for method in ("GET", "DELETE"):
        status, reply = await call(client, method, f"{FLASH}/{number}")
        assert (status, reply["error"]["param"]) == (400, "id")


async def test_registering_warns_where_thinking_cannot_be_switched_off(
    client: apps.Client, engine: FastEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "thinker"})
    path = "/v1/sessions/thinker/flash"
    assert "warning" not in await ok(client, "POST", path, {"query": "Hot?"})
    monkeypatch.setattr(engine.dialect, "switchable", False)
    assert "max_tokens" in (await ok(client, "POST", path, {"query": "Cold?"}))["warning"]


# Changing


async def test_a_change_keeps_what_it_does_not_name(client: apps.Client) -> None:
    options = {
        "max_tokens": 8,
        "fast_answer": ["up", "down"],
        "gap_threshold": 3.5,
        "with_stats": "stream",
        "every": 3,
        "min_interval": 2.5,
        "when": "count > 10 and not count == 13",
    }
    query = await ok(client, "POST", FLASH, {"query": "Trend?", **options})
    assert query.items() >= options.items()
    changed = await ok(client, "PATCH", f"{FLASH}/1", {"gap_threshold": 4})
    assert changed == {**query, "gap_threshold": 4}
    taken = await ok(client, "PATCH", f"{FLASH}/1", dict.fromkeys(options))
    assert taken.pop("max_tokens") == 32
    assert taken.keys() == query.keys() - options.keys()
    taken["max_tokens"] = 32
    assert await ok(client, "GET", f"{FLASH}/1") == taken
    assert (await ok(client, "PATCH", f"{FLASH}/1", {"max_tokens": 1000}))["max_tokens"] == 256


async def test_a_query_with_a_schema_falls_back_to_its_own_length(client: apps.Client) -> None:
    await ok(client, "POST", FLASH, {"query": "Trend?", "schema": {"type": "boolean"}, "max_tokens": 9})
    assert (await ok(client, "PATCH", f"{FLASH}/1", {"max_tokens": None}))["max_tokens"] == 256


async def test_a_change_of_what_is_asked_is_answered_anew_and_no_other(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    await push(client)
    (before,) = await answered(client, "s")
    engine.calls.clear()
    assert (await ok(client, "PATCH", f"{FLASH}/1", {"gap_threshold": 1}))["value"] == before["value"]
    changed = await ok(client, "PATCH", f"{FLASH}/1", {"max_tokens": 1})
    assert (changed["fresh"], "value" in changed) == (False, False)
    (after,) = await answered(client, "s")
    assert (len(after["value"]), after["data_version"]) == (1, 1)
    assert sum(call.priority == Priority.FLASH for call in engine.calls) == 1


async def test_a_query_changed_while_it_is_evaluated_is_evaluated_again(
    client: apps.Client, engine: FastEngine
) -> None:
    engine.generate_gate.clear()
    await ok(client, "POST", FLASH, {"query": "Hot?"})
    await push(client)
    await until(lambda: engine.running)
    await ok(client, "PATCH", f"{FLASH}/1", {"max_tokens": 1})
    engine.generate_gate.set()
    (answer,) = await answered(client, "s")
    assert len(answer["value"]) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "body"),
        ({"query": "Cold?"}, "query"),
        ({"choices": ["a", "b"]}, "choices"),
        ({"schema": {}}, "schema"),
        ({"fast_answer": "up"}, "fast_answer"),
        ({"fast_answer": ["x" * 129]}, "fast_answer.0"),
        ({"gap_threshold": -1}, "gap_threshold"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"every": 0}, "every"),
        ({"when": "count >"}, "when"),
        ({"when": "change_pct > 1"}, "when"),
    ],
)
async def test_bad_changes_are_refused_and_change_nothing(
    client: apps.Client, body: dict[str, Any], param: str
) -> None:
    query = await ok(client, "POST", FLASH, {"query": "Hot?"})
    status, reply = await call(client, "PATCH", f"{FLASH}/1", body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert await ok(client, "GET", f"{FLASH}/1") == query


async def test_what_does_not_exist_cannot_be_changed(client: apps.Client) -> None:
    for path, code in ((f"{FLASH}/1", "flash_query_not_found"), ("/v1/sessions/no/flash/1", "session_not_found")):
        status, reply = await call(client, "PATCH", path, {"max_tokens": 1})
        assert (status, reply["error"]["code"]) == (404, code)


# When it is evaluated


@pytest.mark.parametrize(
    ("given", "shown"), [(True, "window"), ("window", "window"), ("stream", "stream"), (False, None)]
)
async def test_statistics_are_of_the_window_unless_said_otherwise(
    client: apps.Client, given: bool | str, shown: str | None
) -> None:
    query = await ok(client, "POST", FLASH, {"query": "Hot?", "with_stats": given})
    assert query.get("with_stats") == shown


async def test_an_answer_waits_for_its_condition(client: apps.Client) -> None:
    await ok(client, "POST", FLASH, {"query": "Hot?", "when": "count >= 2"})
    await push(client)
    assert "value" not in await ok(client, "GET", f"{FLASH}/1")
    await push(client)
    (answer,) = await answered(client, "s")
    assert answer["data_version"] == 2


async def test_a_condition_that_is_wrong_is_told_where(client: apps.Client) -> None:
    _, reply = await call(client, "POST", FLASH, {"query": "Hot?", "when": "count > 1 && count < 9"})
    assert reply["error"]["message"].startswith(
        "when: at character 11: `&` is not expected there; a condition compares"
    )


# History


async def test_past_answers_are_listed_oldest_first_in_pages(client: apps.Client) -> None:
    await ok(client, "POST", FLASH, {"query": "Trend?", "choices": ["up", "down"]})
    assert await ok(client, "GET", f"{FLASH}/1/history") == {"object": "list", "data": [], "has_more": False}
    for _ in range(5):
        await push(client)
        (newest,) = await answered(client, "s")
    everything = (await ok(client, "GET", f"{FLASH}/1/history"))["data"]
    assert [one["data_version"] for one in everything] == [1, 2, 3, 4, 5]
    assert everything[0]["changed"] is True
    last = everything[-1]
    assert newest["evaluated_at"] == int(last.pop("evaluated_at"))
    last.pop("changed")
    assert last == {name: newest[name] for name in ("value", "data_version", "confidence", "probabilities", "mass")}
    page = await ok(client, "GET", f"{FLASH}/1/history?limit=2&since=2")
    assert ([one["data_version"] for one in page["data"]], page["has_more"]) == ([3, 4], True)
    page = await ok(client, "GET", f"{FLASH}/1/history?limit=2&since=4")
    assert ([one["data_version"] for one in page["data"]], page["has_more"]) == ([5], False)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "since=-1", "since=1.5", f"since={2**63}", "until=1"]
)
async def test_pages_of_past_answers_are_bounded(client: apps.Client, query: str) -> None:
    await ok(client, "POST", FLASH, {"query": "Trend?"})
    status, reply = await call(client, "GET", f"{FLASH}/1/history?{query}")
    assert (status, reply["error"]["param"]) == (400, query.partition("=")[0])


async def test_a_query_that_does_not_exist_has_no_history(client: apps.Client) -> None:
    status, reply = await call(client, "GET", f"{FLASH}/1/history")
    assert (status, reply["error"]["code"]) == (404, "flash_query_not_found")


async def test_the_history_s_length_is_a_setting(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, flash_history=0) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        await ok(client, "POST", FLASH, {"query": "Trend?"})
        await push(client)
        await answered(client, "s")
        assert (await ok(client, "GET", f"{FLASH}/1/history"))["data"] == []
