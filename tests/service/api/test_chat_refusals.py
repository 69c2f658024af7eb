"""Chat completions over HTTP: what is refused, and by which name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests import apps
from tests.apps import call, ok, until
from tests.engine.fast import FastEngine
from tests.service.api.asking import counters
from tests.service.api.talking import CHAT, CLOCK, HEADER, IN_SESSION, WEATHER, asking, complete, user


def image(url: str = "data:image/png;base64,AA==") -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "Hello?"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages.0"),
        ({"messages": [{"role": "developer", "content": "x"}]}, "messages.0"),
        ({"messages": [user("x"), {"role": "user", "content": 1}]}, "messages.1.content"),
        ({"messages": [user([{"type": "audio"}])]}, "messages.0.content.0"),
        ({"messages": [user([{"text": 1}])]}, "messages.0.content.0.text"),
        ({"messages": [user([{"text": "x", "image_url": "x"}])]}, "messages.0.content.0.image_url"),
        ({"messages": [user([{"text": "x"}, image()])]}, "messages.0.content.1"),
        ({"messages": [{"role": "system", "content": [image()]}]}, "messages.0.content.0.type"),
        ({"messages": [{**user("x"), "name": "Ann"}]}, "messages.0.name"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls.0.function"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": ""}}]}]}, None),
        ({"messages": [{"role": "tool", "tool_call_id": 1}]}, "messages.0.tool_call_id"),
        ({"model": 1}, "model"),
        ({"n": 2}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "x" * 65}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": {"x": True}}, "stream_options.x"),
        ({"tools": [{"type": "web_search"}]}, None),
        ({"tools": [{"function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "x" * 65}}]}, "tools.0.function.name"),
        ({"tools": [{"function": {"name": "f", "parameters": []}}]}, "tools.0.function.parameters"),
        ({"tools": [{"function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools.0.function.parameters"),
        ({"tools": [WEATHER, CLOCK, WEATHER]}, "tools"),
        ({"tools": [CLOCK] * 129}, "tools"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": NAMED, "tools": [CLOCK]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "weather"}}, None),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"reasoning_effort": "maximal"}, "reasoning_effort"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"include_reasoning": None}, "include_reasoning"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, "chat_template_kwargs.add_generation_prompt"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, None),
        ({"response_format": {"type": "json_object", "schema": {}}}, "response_format.schema"),
        ({"after": 1}, "after"),
        ({"after": -1}, "after"),
        *(
            ({name: value}, name)
            for name, value in {
                "session_id": "s",
                "frequency_penalty": 0,
                "presence_penalty": 0,
                "logit_bias": {},
                "user": "me",
                "top_k": 5,
                "functions": [],
                "function_call": "auto",
                "store": False,
                "service_tier": "auto",
                "modalities": ["text"],
                "metadata": {},
                "prompt": "x",
            }.items()
        ),
    ],
)
async def test_bad_parameters_are_refused_by_name(
    client: apps.Client, engine: FastEngine, body: dict[str, Any], param: str | None
) -> None:
    status, reply = await call(client, "POST", CHAT, asking(**body))
    assert status == 400, reply
    named = reply["error"]["param"]
    if param is None:
        assert named.startswith(next(iter(body)))
    else:
        assert named == param
    assert reply["error"]["type"] == "invalid_request_error"
    assert counters(client).requests_started == 0
    assert engine.calls == []


async def test_the_refusal_of_a_session_in_the_body_says_where_it_goes(client: apps.Client) -> None:
    _, reply = await call(client, "POST", CHAT, asking(session_id="s"))
    assert HEADER in reply["error"]["message"]


async def test_the_refusal_of_an_image_says_why(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    for headers in ({}, IN_SESSION):
        status, reply = await call(client, "POST", CHAT, {"messages": [user([image()])]}, headers=headers)
        assert status == 400
        assert "no vision" in reply["error"]["message"]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("headers", [{}, IN_SESSION], ids=["alone", "session"])
async def test_a_prompt_beyond_the_context(
    client: apps.Client, engine: FastEngine, streamed: bool, headers: dict[str, str]
) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    status, reply = await call(client, "POST", CHAT, asking("x" * 5000, stream=streamed), headers=headers)
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (400, "context_length_exceeded", "messages")
    assert "prompt is too long" in reply["error"]["message"]
    assert engine.calls == []
    # The session is free again.
    assert await complete(client, headers)


async def test_a_session_has_one_turn_at_a_time(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.generate_gate.clear()
    turn = asyncio.create_task(complete(client, IN_SESSION))
    await until(lambda: engine.running)
    status, reply = await call(client, "POST", CHAT, asking(), headers=IN_SESSION)
    assert (status, reply["error"]["type"]) == (409, "conflict_error")
    status, _ = await call(client, "DELETE", "/v1/sessions/s")
    assert status == 409
    engine.generate_gate.set()
    assert await turn


async def test_more_was_never_pushed(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    status, reply = await call(client, "POST", CHAT, asking(after=1), headers=IN_SESSION)
    assert (status, reply["error"]["param"]) == (400, "after")


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_engine_that_has_died(client: apps.Client, engine: FastEngine, streamed: bool) -> None:
    engine.kill()
    async with client.post(CHAT, json=asking(stream=streamed)) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert (await response.json())["error"]["code"] == "engine_unavailable"
