"""Reading a conversation ahead, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests import apps
from tests.apps import call, ok, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import counters
from tests.service.api.talking import CLOCK, IN_SESSION, WEATHER, asking, complete, user

WARM = "/v1/sessions/s/warm"


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def test_what_was_read_ahead_need_not_be_computed(client: apps.Client) -> None:
    body: dict[str, Any] = {"messages": [user("A long question. " * 10)], "tools": [WEATHER]}
    warmed = await ok(client, "POST", WARM, body)
    assert warmed.pop("id").startswith("warm_")
    assert warmed.pop("prompt_tokens") > 160
    assert warmed == {
        "object": "session.warm",
        "session_id": "s",
        "finish_reason": "warmed",
        "cached_tokens": 0,
        "prefix_cached_tokens": 0,
        "data_version": 0,
    }
    reply = await complete(client, IN_SESSION, **body)
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 160


async def test_what_is_there_already_is_covered(client: apps.Client) -> None:
    first = await ok(client, "POST", WARM, asking())
    again = await ok(client, "POST", WARM, asking())
    assert again["finish_reason"] == "covered"
    assert again["cached_tokens"] == again["prompt_tokens"] == first["prompt_tokens"]
    cost = counters(client)
    assert (cost.session_warm_turns, cost.session_warmed_tokens) == (1, first["prompt_tokens"])
    assert (cost.requests_started, cost.session_turns) == (0, 0)


async def test_a_turn_takes_over(client: apps.Client, engine: FastEngine) -> None:
    engine.ingest_gate.clear()
    warming = asyncio.create_task(ok(client, "POST", WARM, asking("x" * 1000)))
    await until(lambda: engine.calls)
    turn = asyncio.create_task(complete(client, IN_SESSION))
    await until(lambda: engine.running)
    engine.ingest_gate.set()
    assert (await turn)["choices"]
    assert (await warming)["finish_reason"] in ("cancelled", "warmed")


async def test_not_in_the_middle_of_a_turn(client: apps.Client, engine: FastEngine) -> None:
    engine.generate_gate.clear()
    turn = asyncio.create_task(complete(client, IN_SESSION))
    await until(lambda: engine.running)
    status, reply = await call(client, "POST", WARM, asking())
    assert (status, reply["error"]["type"]) == (409, "conflict_error")
    engine.generate_gate.set()
    await turn


async def test_sampling_and_the_choice_of_tools_are_not_looked_at(client: apps.Client) -> None:
    bare = await ok(client, "POST", WARM, {"messages": [user("Hello?")]})
    body = asking(seed=1, max_tokens=1, stop="x", stream=True, tool_choice="required", logprobs=True)
    again = await ok(client, "POST", WARM, body)
    assert (again["finish_reason"], again["prompt_tokens"]) == ("covered", bare["prompt_tokens"])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "messages"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "data:"}}])]}, "messages.0.content.0"),
        (asking(top_k=1), "top_k"),
        (asking(session_id="s"), "session_id"),
        (asking(tools=[CLOCK, CLOCK]), "tools"),
        (asking("x" * 5000), "messages"),
    ],
)
async def test_bad_parameters_are_refused_by_name(client: apps.Client, body: dict[str, Any], param: str) -> None:
    status, reply = await call(client, "POST", WARM, body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert counters(client).session_warm_turns == 0


async def test_an_unknown_session(client: apps.Client) -> None:
    status, _ = await call(client, "POST", "/v1/sessions/gone/warm", asking())
    assert status == 404
