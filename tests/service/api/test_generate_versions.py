"""Which version answers a question, and when it is served from the flash cache."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service.keys import METRICS
from streams.engine.base import Priority
from tests import apps
from tests.apps import answered, call, ok, settled, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import GENERATE, SESSION, SteppedEngine, counters, stream


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client, data: str = "x") -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": data})
    await settled(client, "s")


# Versions


async def test_after_waits_until_what_was_pushed_is_resident(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    ack = await ok(client, "POST", f"{SESSION}/push", {"data": ["a", "b"]})
    now = await ok(client, "POST", GENERATE, {"prompt": "What?"})
    assert now["data_version"] == 0, "without it, the settled version answers"
    asking = asyncio.create_task(ok(client, "POST", GENERATE, {"prompt": "What?", "after": ack["total_pushed"]}))
    await until(lambda: client.app[METRICS].connections)
    engine.ingest_gate.set()
    assert (await asking)["data_version"] == 1
    assert (await ok(client, "POST", GENERATE, {"prompt": "What?", "after": 0}))["data_version"] == 1


async def test_after_more_than_was_pushed_is_400(client: apps.Client) -> None:
    await push(client)
    status, reply = await call(client, "POST", GENERATE, {"prompt": "What?", "after": 2})
    assert (status, reply["error"]["param"]) == (400, "after")


async def test_after_is_bounded(redis: Redis, tmp_path: Path) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, wait_seconds_max=0.01) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        engine.ingest_gate.clear()
        await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
        async with client.post(GENERATE, json={"prompt": "What?", "after": 1}) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            error = (await response.json())["error"]
            assert (error["code"], error["param"]) == ("not_resident_in_time", "after")


async def test_after_ends_when_the_session_is_deleted(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    await ok(client, "POST", f"{SESSION}/push", {"data": "x"})
    asking = asyncio.create_task(call(client, "POST", GENERATE, {"prompt": "What?", "after": 1}))
    await until(lambda: client.app[METRICS].connections)
    await ok(client, "DELETE", SESSION)
    assert (await asking)[0] in (404, 503)


async def test_questions_answer_over_the_version_they_started_with(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        await push(client, "a")
        first = asyncio.create_task(ok(client, "POST", GENERATE, {"prompt": "What?", "temperature": 0}))
        await until(lambda: engine.running == 1)
        engine.step(2)
        await push(client, "b")
        second = asyncio.create_task(ok(client, "POST", GENERATE, {"prompt": "What?", "temperature": 0}))
        await until(lambda: engine.running == 2)
        engine.step(1000)
        answers = await asyncio.gather(first, second)
        assert [answer["data_version"] for answer in answers] == [1, 2]
        prompts = [answer["usage"]["prompt_tokens"] for answer in answers]
        assert prompts[1] - prompts[0] == len("b\n")


# The flash cache


def foreground(engine: FastEngine) -> int:
    return sum(call.priority == Priority.FOREGROUND for call in engine.calls)


async def test_a_fresh_flash_answer_is_served_without_the_model(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    await push(client)
    (query,) = await answered(client, "s")
    hit = await ok(client, "POST", GENERATE, {"prompt": "Hot?", "temperature": 1, "max_tokens": 1, "seed": 3})
    assert hit.pop("id").startswith("gen_")
    expected = {
        "object": "session.generation",
        "session_id": "s",
        "finish_reason": "stop",
        "data_version": 1,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
        "flash": True,
        "flash_id": 1,
        "confidence": query["confidence"],
    }
    assert hit == {**expected, "text": query["value"]}
    text, done = await stream(client, prompt="Hot?")
    assert text == {"text": query["value"]}
    done.pop("id")
    assert done == {**expected, "done": True}
    assert foreground(engine) == 0
    assert (counters(client).session_flash_hits, counters(client).requests_started) == (2, 0)
    computed = await ok(client, "POST", GENERATE, {"prompt": "Hot? "})
    assert "flash" not in computed


async def test_a_choice_is_served_whole(client: apps.Client) -> None:
    choices = ["definitely up", "definitely down"]
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Trend?", "choices": choices})
    await push(client)
    await answered(client, "s")
    hit = await ok(client, "POST", GENERATE, {"prompt": "Trend?"})
    assert hit["text"] in choices


async def test_a_stale_flash_answer_is_never_served(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    await push(client)
    await answered(client, "s")
    engine.generate_gate.clear()
    await push(client)
    asking = asyncio.create_task(ok(client, "POST", GENERATE, {"prompt": "Hot?"}))
    await until(lambda: foreground(engine))
    engine.generate_gate.set()
    answer = await asking
    assert (answer["data_version"], "flash" in answer) == (2, False)
    assert (await answered(client, "s"))[0]["data_version"] == 2
    assert (await ok(client, "POST", GENERATE, {"prompt": "Hot?"}))["flash"] is True


@pytest.mark.parametrize(
    ("options", "served"),
    [
        ({"chat_template_kwargs": {"enable_thinking": True}}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, True),
        ({"reasoning_effort": "medium"}, False),
        ({"reasoning_effort": "low"}, True),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}}, True),
    ],
)
async def test_thinking_otherwise_than_the_flash_answer_is_computed(
    client: apps.Client, engine: FastEngine, options: dict[str, Any], served: bool
) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    await push(client)
    await answered(client, "s")
    answer = await ok(client, "POST", GENERATE, {"prompt": "Hot?", **options})
    assert answer.get("flash", False) is served
    assert foreground(engine) == (not served)


async def test_thoughts_are_counted_and_not_part_of_the_text(client: apps.Client, engine: FastEngine) -> None:
    engine.script.extend(["hmm\n</think>\n\nyes"] * 2)
    asked = {"prompt": "Hot?", "reasoning_effort": "high"}
    answer = await ok(client, "POST", GENERATE, asked)
    assert answer["text"] == "yes"
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] > len("hmm")
    *pieces, done = await stream(client, **asked)
    assert "".join(piece["text"] for piece in pieces) == "yes"
    assert done["usage"]["completion_tokens_details"] == answer["usage"]["completion_tokens_details"]


async def test_questions_are_answered_without_thinking_unless_asked(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("yes")
    answer = await ok(client, "POST", GENERATE, {"prompt": "Hot?"})
    assert (answer["text"], answer["usage"]["completion_tokens_details"]["reasoning_tokens"]) == ("yes", 0)
