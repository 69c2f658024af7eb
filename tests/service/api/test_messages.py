"""Messages over HTTP: replies, whole; and counting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest
from redis.asyncio import Redis

from service.api.messages.replies import MessageReply
from tests import apps
from tests.apps import call, ok
from tests.engine.fast import WORDS, FastEngine
from tests.service.api.asking import counters
from tests.service.api.talking import (
    CLOCK_TOOL,
    COUNT,
    IN_SESSION,
    MESSAGES,
    WEATHER_TOOL,
    asking,
    complete,
    message,
    user,
    written,
)
from tests.service.api.test_generate import RecordingEngine

ENABLED = {"type": "enabled", "budget_tokens": 1024}


async def test_a_reply_says_what_it_is_and_what_it_cost(client: apps.Client) -> None:
    reply = await message(client)
    MessageReply.model_validate(reply)
    assert reply.pop("id").startswith("msg_")
    ((block,), usage) = reply.pop("content"), reply.pop("usage")
    assert block.pop("text") in WORDS
    assert block == {"type": "text"}
    assert reply == {
        "type": "message",
        "role": "assistant",
        "model": "fast",
        "stop_reason": "end_turn",
        "stop_sequence": None,
    }
    assert usage == {
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
    }
    assert counters(client).generated_tokens == usage["output_tokens"]
    again = (await message(client))["usage"]
    assert again["cache_read_input_tokens"] == again["prefix_cached_tokens"] > 0
    assert again["input_tokens"] + again["cache_read_input_tokens"] == usage["input_tokens"]


async def test_both_surfaces_speak_to_one_session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    first = await message(client, IN_SESSION)
    said = {"role": "assistant", "content": first["content"]}
    await message(client, IN_SESSION, messages=[user("Hello?"), said, user("And?")])
    session = await ok(client, "GET", "/v1/sessions/s")
    assert (session["turns"], counters(client).session_turns) == (2, 2)
    text = "".join(block["text"] for block in first["content"])
    messages = [user("Hello?"), {"role": "assistant", "content": text}, user("Or?")]
    again = await complete(client, IN_SESSION, messages=messages)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_tokens": 9, "temperature": 0.6, "top_p": 0.9, "seed": None, "ignore_eos": False, "stop": ()}),
        ({"temperature": 1, "top_p": 0.5, "seed": 3}, {"temperature": 1.0, "top_p": 0.5, "seed": 3}),
        ({"stop_sequences": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"model": {"any": "thing"}, "metadata": {"user_id": "x"}, "system": None}, {}),
        ({"metadata": None, "tools": None, "tool_choice": None, "thinking": None, "stop_sequences": None}, {}),
    ],
)
async def test_parameters_reach_the_engine(
    redis: Redis, tmp_path: Path, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    engine = RecordingEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", MESSAGES, {"messages": [user("Hello?")], "max_tokens": 9, **given})
    (sampling,) = engine.samplings
    assert {name: getattr(sampling, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given", "reason", "sequence"),
    [
        ({"max_tokens": 2}, "max_tokens", None),
        ({"stop_sequences": ["x", "three"]}, "stop_sequence", "three"),
        ({}, "end_turn", None),
    ],
)
async def test_why_a_reply_ended(
    client: apps.Client, engine: FastEngine, given: dict[str, Any], reason: str, sequence: str | None
) -> None:
    engine.script.append("one two three four")
    reply = await message(client, **given)
    assert (reply["stop_reason"], reply["stop_sequence"]) == (reason, sequence)


async def test_a_full_context_is_not_max_tokens(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, FastEngine(context=512, kv_capacity=4096)) as client:
        reply = await message(client, max_tokens=10_000, ignore_eos=True)
    assert reply["stop_reason"] == "model_context_window_exceeded"


# Calls


async def test_the_input_of_a_call_keeps_all_its_digits(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("One moment." + written("weather", '{"n": 123456789012345678901}'))
    async with client.post(MESSAGES, json=asking(max_tokens=500, tools=[WEATHER_TOOL])) as response:
        raw = await response.read()
        reply = await response.json()
    assert b'"input":{"n":123456789012345678901}' in raw
    text, use = reply["content"]
    assert text == {"type": "text", "text": "One moment."}
    assert use.pop("id").startswith("toolu_")
    assert use == {"type": "tool_use", "name": "weather", "input": {"n": 123456789012345678901}}
    assert (reply["stop_reason"], reply["stop_sequence"]) == ("tool_use", None)


async def test_msgpack_has_what_it_can_of_them(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append(written("weather", '{"n": 18446744073709551615, "m": 123456789012345678901}'))
    headers = {"Accept": "application/msgpack"}
    async with client.post(MESSAGES, json=asking(max_tokens=500, tools=[WEATHER_TOOL]), headers=headers) as response:
        (use,) = msgpack.unpackb(await response.read())["content"]
    assert use["input"] == {"n": 18446744073709551615, "m": 123456789012345678901.0}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "clock"}])
async def test_a_forced_call_is_made_without_thinking(client: apps.Client, choice: dict[str, str]) -> None:
    reply = await message(client, tools=[CLOCK_TOOL], tool_choice=choice)
    assert [block["type"] for block in reply["content"]] == ["tool_use"]
    assert reply["content"][0]["input"] == {}


async def test_one_call_at_most(client: apps.Client, engine: FastEngine) -> None:
    for once, calls in ((False, 2), (True, 1)):
        engine.script.append(written("clock", "{}") * 2)
        choice = {"type": "auto", "disable_parallel_tool_use": once}
        reply = await message(client, tools=[CLOCK_TOOL], tool_choice=choice)
        assert len(reply["content"]) == calls


async def test_no_calls_where_there_shall_be_none(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append(written("clock", "{}"))
    reply = await message(client, tools=[CLOCK_TOOL], tool_choice={"type": "none"})
    assert [block["type"] for block in reply["content"]] == ["text"]


async def test_what_a_call_came_to(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.script.append(written("clock", "{}"))
    called = await message(client, IN_SESSION, tools=[CLOCK_TOOL])
    result = {"type": "tool_result", "tool_use_id": called["content"][0]["id"], "content": "12:00"}
    messages = [user("Hello?"), {"role": "assistant", "content": called["content"]}, user([result])]
    reply = await message(client, IN_SESSION, tools=[CLOCK_TOOL], messages=messages)
    assert reply["usage"]["cache_read_input_tokens"] > 0
    assert (await ok(client, "GET", "/v1/sessions/s"))["turns"] == 2


# Thinking


@pytest.mark.parametrize(
    ("given", "thinks"),
    [
        ({}, False),
        ({"thinking": ENABLED}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"output_config": {"effort": "low"}}, False),
        ({"output_config": {"effort": "medium"}}, True),
        ({"output_config": {}}, False),
        ({"thinking": ENABLED, "output_config": {"effort": "low"}}, False),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, False),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, False),
    ],
)
async def test_what_decides_over_thinking(client: apps.Client, given: dict[str, Any], thinks: bool) -> None:
    reply = await message(client, **given)
    assert [block["type"] for block in reply["content"]] == ["thinking", "text"][0 if thinks else 1 :]
    assert not thinks or reply["content"][0]["thinking"].startswith("It may be ")


async def test_thinking_can_be_hidden_and_is_still_signed(client: apps.Client) -> None:
    shown = (await message(client, thinking=ENABLED))["content"][0]
    hidden = (await message(client, thinking={**ENABLED, "display": "omitted"}))["content"][0]
    assert hidden == {**shown, "thinking": ""}
    assert shown["signature"]


async def test_thinking_sent_back_repeats_the_turn(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    for display in ("summarized", "omitted"):
        asked = {"thinking": {**ENABLED, "display": display}}
        first = await message(client, IN_SESSION, **asked)
        messages = [user("Hello?"), {"role": "assistant", "content": first["content"]}, user("And?")]
        second = await message(client, IN_SESSION, messages=messages, **asked)
        assert second["usage"]["cache_read_input_tokens"] > first["usage"]["input_tokens"] // 2


async def test_a_reply_cut_off_in_its_thoughts_is_those_alone(client: apps.Client) -> None:
    reply = await message(client, thinking=ENABLED, max_tokens=4)
    (block,) = reply["content"]
    assert (block["type"], block["thinking"], reply["stop_reason"]) == ("thinking", "It m", "max_tokens")


# Counting


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"system": "Be brief."},
        {"system": [{"text": "Be"}, {"type": "any", "text": "brief."}]},
        {"tools": [WEATHER_TOOL]},
        {"tools": [WEATHER_TOOL], "tool_choice": {"type": "any"}},
        {"thinking": ENABLED},
        {"messages": [user("a"), {"role": "assistant", "content": "b"}, user("c")]},
    ],
)
async def test_a_count_is_what_the_request_would_have(
    client: apps.Client, engine: FastEngine, given: dict[str, Any]
) -> None:
    counted = await ok(client, "POST", COUNT, {"messages": [user("Hello?")], **given})
    assert engine.calls == []
    usage = (await message(client, **given))["usage"]
    assert counted == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


async def test_a_count_ignores_what_does_not_matter(client: apps.Client) -> None:
    bare = await ok(client, "POST", COUNT, {"messages": [user("Hello?")]})
    full = asking(max_tokens=5, stream=True, stop_sequences=["x"], model="m", metadata={})
    assert await ok(client, "POST", COUNT, full, headers=IN_SESSION) == bare
    status, _ = await call(client, "POST", COUNT, asking(top_k=4))
    assert status == 400
