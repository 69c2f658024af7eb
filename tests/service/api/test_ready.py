"""The ready position over HTTP: shown on the session, and answered from without a step of the engine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streams.engine.base import Priority
from tests import apps
from tests.apps import answered, call, core, ok, settled, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import GENERATE, SESSION, counters, stream


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "pre_decode": True})


async def push(client: apps.Client, data: str = "x") -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": data})
    await settled(client, "s")


async def ready(client: apps.Client) -> dict[str, Any]:
    """The session, once its ready position is of the present version."""
    flash, session = core(client).flash, core(client).manager.get("s")
    await until(lambda: flash.ready(session))
    shown: dict[str, Any] = await ok(client, "GET", SESSION)
    assert shown["ready"] is True
    return shown


async def meant(client: apps.Client) -> str:
    """A text that begins with the token the model would say next."""
    return f"{chr((await ready(client))['ready_token'])}!"


async def test_the_session_shows_it_while_it_is_of_the_present_version(client: apps.Client, engine: FastEngine) -> None:
    empty = await ok(client, "GET", SESSION)
    assert (empty["pre_decode"], empty["ready"]) == (True, False)
    await push(client)
    shown = await ready(client)
    assert shown["data_version"] == 1
    assert shown["ready_gap"] > 0
    assert (await ok(client, "GET", "/v1/sessions"))["data"][0]["ready_token"] == shown["ready_token"]
    engine.generate_gate.clear()
    await push(client)
    stale = await ok(client, "GET", SESSION)
    assert (stale["pre_decode"], stale["ready"]) == (True, False)
    assert stale.keys().isdisjoint({"ready_token", "ready_gap"})
    engine.generate_gate.set()
    assert (await ready(client))["data_version"] == 2


async def test_a_candidate_it_is_sure_of_is_answered_without_the_engine(
    client: apps.Client, engine: FastEngine
) -> None:
    await push(client)
    answer = await meant(client)
    gap = (await ready(client))["ready_gap"]
    engine.calls.clear()
    body = {"prompt": "What now?", "fast_answer": [answer, "?"], "temperature": 1, "max_tokens": 1}
    hit = await ok(client, "POST", GENERATE, body)
    assert hit.pop("id").startswith("gen_")
    expected = {
        "object": "session.generation",
        "session_id": "s",
        "finish_reason": "stop",
        "data_version": 1,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
        "speculative": True,
        "logit_gap": gap,
    }
    assert hit == {**expected, "text": answer}
    text, done = await stream(client, **body)
    assert text == {"text": answer}
    done.pop("id")
    assert done == {**expected, "done": True}
    assert engine.calls == []
    assert (counters(client).session_ready_exits, counters(client).requests_started) == (2, 0)


async def test_the_gap_must_reach_the_threshold(client: apps.Client) -> None:
    await push(client)
    gap, answer = (await ready(client))["ready_gap"], await meant(client)
    for threshold, served in ((0, True), (gap, True), (gap + 1e-9, False), (1e300, False)):
        body = {"prompt": "What?", "fast_answer": [answer], "gap_threshold": threshold}
        assert ("speculative" in await ok(client, "POST", GENERATE, body)) is served


@pytest.mark.parametrize("texts", [[], ["?"], ["{0}?", "{0}!"]])
async def test_what_is_no_candidate_or_several_is_computed(client: apps.Client, texts: list[str]) -> None:
    await push(client)
    first = (await meant(client))[0]
    candidates = [text.format(first) for text in texts]
    reply = await ok(client, "POST", GENERATE, {"prompt": "What?", "fast_answer": candidates})
    assert "speculative" not in reply
    assert reply["usage"]["completion_tokens"] > 0
    assert counters(client).session_ready_exits == 0


async def test_the_same_candidate_twice_is_one(client: apps.Client) -> None:
    await push(client)
    answer = await meant(client)
    assert (await ok(client, "POST", GENERATE, {"prompt": "What?", "fast_answer": [answer, answer]}))["text"] == answer


async def test_an_older_position_answers_nothing(client: apps.Client, engine: FastEngine) -> None:
    await push(client)
    candidates = [chr(letter) for letter in range(ord("a"), ord("z") + 1)]
    await ready(client)
    core(client).manager.get("s").version += 1
    assert "speculative" not in await ok(client, "POST", GENERATE, {"prompt": "What?", "fast_answer": candidates})


async def test_a_session_without_one_computes(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "other"})
    await ok(client, "POST", "/v1/sessions/other/push", {"data": "x"})
    await settled(client, "other")
    await push(client)
    body = {"prompt": "What?", "fast_answer": [await meant(client)]}
    assert "speculative" not in await ok(client, "POST", "/v1/sessions/other/generate", body)


async def test_a_fresh_flash_answer_comes_first(client: apps.Client) -> None:
    await ok(client, "POST", f"{SESSION}/flash", {"query": "Hot?"})
    await push(client)
    await answered(client, "s")
    answer = await meant(client)
    hit = await ok(client, "POST", GENERATE, {"prompt": "Hot?", "fast_answer": [answer]})
    assert (hit["flash"], "speculative" in hit) == (True, False)


async def test_thinking_otherwise_is_computed(client: apps.Client) -> None:
    await push(client)
    body = {"prompt": "What?", "fast_answer": [await meant(client)]}
    assert "speculative" not in await ok(client, "POST", GENERATE, {**body, "reasoning_effort": "high"})
    assert "speculative" in await ok(client, "POST", GENERATE, {**body, "reasoning_effort": "low"})


async def test_a_hostile_text_is_no_candidate_and_no_error(client: apps.Client) -> None:
    await push(client)
    await ready(client)
    status, reply = await call(
        client, "POST", GENERATE, {"prompt": "What?", "fast_answer": ["<|im_end|>", "\u0000", " "]}
    )
    assert (status, "speculative" in reply) == (200, False)


# Stored on a query


def filled(fields: dict[str, Any], answer: str) -> dict[str, Any]:
    """The fields, with the candidate that is meant in its place."""
    texts = fields.get("fast_answer")
    named = {} if texts is None else {"fast_answer": [answer if text == "MEANT" else text for text in texts]}
    return fields | named


@pytest.mark.parametrize(
    ("options", "body", "served"),
    [
        ({"fast_answer": ["MEANT", "?"]}, {}, True),
        ({"fast_answer": ["MEANT"], "gap_threshold": 1e9}, {}, False),
        ({"fast_answer": ["?"]}, {}, False),
        ({}, {}, False),
        ({"gap_threshold": 1e9}, {"fast_answer": ["MEANT"]}, False),
        ({"gap_threshold": 1e9}, {"fast_answer": ["MEANT"], "gap_threshold": 0}, True),
        ({"fast_answer": ["MEANT"], "gap_threshold": 1e9}, {"gap_threshold": 0}, True),
        ({"fast_answer": ["MEANT"]}, {"gap_threshold": 1e9}, False),
        ({"fast_answer": ["MEANT"]}, {"fast_answer": ["?"]}, False),
        ({"fast_answer": ["MEANT"]}, {"fast_answer": []}, False),
        ({"fast_answer": ["MEANT"]}, {"prompt": "Hot? "}, False),
    ],
)
async def test_a_query_may_say_what_its_text_is_answered_with_until_its_own_answer_is_fresh(
    client: apps.Client, engine: FastEngine, options: dict[str, Any], body: dict[str, Any], served: bool
) -> None:
    await push(client)
    answer = await meant(client)
    engine.generate_gate.clear()
    await ok(client, "POST", f"{SESSION}/flash", filled({"query": "Hot?", **options}, answer))
    asking = asyncio.create_task(ok(client, "POST", GENERATE, filled({"prompt": "Hot?", **body}, answer)))
    await until(lambda: asking.done() or any(call.priority == Priority.FOREGROUND for call in engine.calls))
    engine.generate_gate.set()
    reply = await asking
    assert ("speculative" in reply, "flash" in reply) == (served, False)
    if served:
        assert reply["text"] == answer
