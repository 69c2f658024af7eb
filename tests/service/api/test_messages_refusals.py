"""Messages over HTTP: what is refused, in the envelope of this surface."""

from __future__ import annotations

from typing import Any

import pytest

from tests import apps
from tests.apps import call, ok
from tests.engine.fast import FastEngine
from tests.service.api.asking import counters
from tests.service.api.talking import CLOCK_TOOL, COUNT, HEADER, IN_SESSION, MESSAGES, asking, message, user

ENABLED = {"type": "enabled", "budget_tokens": 1024}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def result(content: Any) -> list[Any]:
    return [user([{"type": "tool_result", "tool_use_id": "t", "content": content}])]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, "messages: "),
    ({"messages": [{"role": "system", "content": "x"}]}, "messages.0: role must be `user` or `assistant`"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0: role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
    ({"messages": [user(None)]}, "messages.0.content: "),
    ({"messages": [user([{"type": "document"}])]}, "messages.0.content.0: type must be one of"),
    ({"messages": [user([{"type": "tool_use", "name": "f"}])]}, "messages.0.content.0: type must be one of"),
    ({"messages": [user([{"type": "text", "text": "x", "x": 1}])]}, "`messages.0.content.0.x` is not supported"),
    ({"messages": [user([{"text": "x"}, IMAGE])]}, "messages.0.content.1: this model has no vision"),
    ({"messages": [{"role": "assistant", "content": [IMAGE]}]}, "messages.0.content.0: type must be one of"),
    (
        {"messages": result([{"text": "x"}])},
        "messages.0.content.0.content.0: tool_result content of type '?' is not supported (text)",
    ),
    (
        {"messages": result([IMAGE])},
        "messages.0.content.0.content.0: tool_result content of type 'image' is not supported (text)",
    ),
    ({"messages": result(1)}, "messages.0.content.0.content: "),
    ({"system": 1}, "system: "),
    ({"system": [{"type": "text"}]}, "system.0.text: Field required"),
    ({"top_k": 5}, "`top_k` is not supported"),
    ({"session_id": "s"}, f"session_id: is not read from the body; send the session's id in the header {HEADER}"),
    ({"temperature": -1}, "temperature: "),
    ({"stop_sequences": "x"}, "stop_sequences: "),
    ({"stop_sequences": ["x"] * 5}, "stop_sequences: List should have at most 4 items"),
    ({"tools": [{"name": "a.b"}]}, "tools.0.name: "),
    ({"tools": [{"name": "a", "input_schema": {"type": "string"}}]}, "tools.0.input_schema: must be"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "`tools.0.type` is not supported"),
    ({"tools": [CLOCK_TOOL, CLOCK_TOOL]}, "tools.1: there is a tool named `clock`"),
    ({"tool_choice": "auto"}, "tool_choice: "),
    ({"tool_choice": {"type": "required"}}, "tool_choice.type: "),
    ({"tool_choice": {"type": "any"}}, "tool_choice: a call is asked for and there are no tools"),
    ({"tool_choice": {"type": "tool", "name": "x"}, "tools": [CLOCK_TOOL]}, "tool_choice: there is no tool named `x`"),
    ({"tool_choice": {"type": "tool"}, "tools": [CLOCK_TOOL]}, "tool_choice: `name` goes with"),
    ({"tool_choice": {"type": "none", "disable_parallel_tool_use": True}}, "tool_choice: `disable_parallel"),
    ({"tool_choice": {"type": "any"}, "tools": [CLOCK_TOOL], "thinking": ENABLED}, "tool_choice: a call can only be"),
    (
        {"tool_choice": {"type": "any"}, "tools": [CLOCK_TOOL], "output_config": {"effort": "high"}},
        "tool_choice: a call can only be forced with thinking off",
    ),
    ({"thinking": {"type": "enabled"}}, "thinking: `budget_tokens` goes with"),
    ({"thinking": {"type": "enabled", "budget_tokens": 1023}}, "thinking.budget_tokens: "),
    ({"thinking": {"type": "adaptive", "display": "full"}}, "thinking.display: "),
    ({"output_config": {"effort": "none"}}, "output_config.effort: "),
    ({"output_config": {"format": {"type": "json_schema"}}}, "`output_config.format` is not supported"),
    ({"metadata": "x"}, "metadata: "),
    ({"container": "x"}, "`container` is not supported"),
]


def told(reply: Any) -> str:
    """The message of an error in this surface's envelope."""
    assert reply.keys() == {"type", "error", "request_id"}
    assert reply["type"] == "error"
    assert reply["request_id"].startswith("req_")
    assert reply["error"].keys() == {"type", "message"}
    message: str = reply["error"]["message"]
    return message


@pytest.mark.parametrize(("body", "start"), REFUSED)
async def test_bad_parameters_are_refused_by_name(
    client: apps.Client, engine: FastEngine, body: dict[str, Any], start: str
) -> None:
    for path in (MESSAGES, COUNT):
        status, reply = await call(client, "POST", path, asking(max_tokens=5, **body))
        assert status == 400, reply
        assert told(reply).startswith(start)
        assert reply["error"]["type"] == "invalid_request_error"
    assert counters(client).requests_started == 0
    assert engine.calls == []


@pytest.mark.parametrize("value", [{}, {"max_tokens": None}, {"max_tokens": "5"}, {"max_tokens": 0}])
async def test_max_tokens_is_required(client: apps.Client, value: dict[str, Any]) -> None:
    status, reply = await call(client, "POST", MESSAGES, asking(**value))
    assert (status, told(reply).startswith("max_tokens: ")) == (400, True)


async def test_after_needs_a_session(client: apps.Client) -> None:
    status, reply = await call(client, "POST", MESSAGES, asking(max_tokens=5, after=0))
    assert status == 400
    assert HEADER in told(reply)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("headers", [{}, IN_SESSION], ids=["alone", "session"])
async def test_a_prompt_beyond_the_context(client: apps.Client, streamed: bool, headers: dict[str, str]) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    body = asking("x" * 5000, max_tokens=5, stream=streamed)
    status, reply = await call(client, "POST", MESSAGES, body, headers=headers)
    assert status == 400
    assert told(reply).startswith("prompt is too long: 50")
    assert await message(client, headers)


async def test_other_refusals_have_the_same_envelope(client: apps.Client, engine: FastEngine) -> None:
    body = asking(max_tokens=5)
    status, reply = await call(client, "POST", MESSAGES, body, headers={HEADER: "gone"})
    assert (status, reply["error"]["type"]) == (404, "not_found_error")
    async with client.get(MESSAGES) as response:
        assert response.status == 405
        assert told(await response.json())
    engine.kill()
    status, reply = await call(client, "POST", MESSAGES, body)
    assert (status, reply["error"]["type"]) == (503, "overloaded_error")
