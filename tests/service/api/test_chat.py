"""Chat completions over HTTP: replies, whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import orjson
import pytest
from redis.asyncio import Redis

from service.api.chat.replies import ChatCompletion
from tests import apps
from tests.apps import core, ok, settled, until
from tests.engine.fast import WORDS, FastEngine
from tests.service.api.asking import counters
from tests.service.api.talking import CHAT, CLOCK, HEADER, IN_SESSION, WEATHER, asking, complete, user, written
from tests.service.api.test_generate import RecordingEngine


async def test_a_reply_says_what_it_is_and_what_it_cost(client: apps.Client) -> None:
    reply = await complete(client)
    ChatCompletion.model_validate(reply)
    assert reply.pop("id").startswith("chatcmpl-")
    assert isinstance(reply.pop("created"), int)
    (choice,) = reply.pop("choices")
    assert choice["message"].pop("content") in WORDS
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "reasoning": None},
        "logprobs": None,
        "finish_reason": "stop",
    }
    usage = reply.pop("usage")
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    assert reply == {"object": "chat.completion", "model": "fast"}
    cost = counters(client)
    assert (cost.requests_started, cost.requests_ok, cost.session_turns) == (1, 1, 0)
    assert (cost.prompt_tokens, cost.generated_tokens) == (prompt, completion)


async def test_the_prefix_cache_is_told_apart_from_the_session(client: apps.Client) -> None:
    await complete(client)
    again = await complete(client)
    details = again["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] == details["prefix_cached_tokens"] > 0
    assert counters(client).prefix_cached_tokens == details["cached_tokens"]
    assert counters(client).session_cached_tokens == 0


async def test_a_turn_of_a_session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    first = await complete(client, IN_SESSION)
    said = first["choices"][0]["message"]
    await until(lambda: core(client).manager.get("s").kv_tokens)
    messages = [user("Hello?"), said, user("And now?")]
    second = await complete(client, IN_SESSION, messages=messages)
    details = second["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] > details.get("prefix_cached_tokens", 0)
    session = await ok(client, "GET", "/v1/sessions/s")
    assert (session["turns"], session["data_version"]) == (2, 2)
    cost = counters(client)
    assert cost.session_turns == 2
    assert cost.session_cached_tokens > 0


async def test_a_turn_reads_what_was_pushed_before_it(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.ingest_gate.clear()
    ack = await ok(client, "POST", "/v1/sessions/s/push", {"data": "12:00 71 C"})
    engine.ingest_gate.set()
    reply = await complete(client, IN_SESSION, after=ack["total_pushed"])
    await settled(client, "s")
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert (await ok(client, "GET", "/v1/sessions/s"))["data_version"] == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"temperature": 0.6, "top_p": 0.9, "seed": None, "ignore_eos": False, "stop": (), "top_logprobs": 0}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 5}),
        ({"temperature": 2, "top_p": 1, "seed": 7}, {"temperature": 2.0, "top_p": 1.0, "seed": 7}),
        ({"stop": "\n"}, {"stop": ("\n",)}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"logprobs": True}, {"top_logprobs": 1}),
        ({"logprobs": True, "top_logprobs": 0}, {"top_logprobs": 1}),
        ({"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 20}),
        ({"logprobs": False}, {"top_logprobs": 0}),
        ({"model": "gpt-9", "n": 1, "tools": [], "tool_choice": "auto", "stop": None}, {"stop": ()}),
        ({"tools": None, "tool_choice": None, "parallel_tool_calls": None, "response_format": None}, {}),
        ({"stream_options": {"include_usage": True}, "stream": False, "response_format": {"type": "text"}}, {}),
    ],
)
async def test_parameters_reach_the_engine(
    redis: Redis, tmp_path: Path, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    engine = RecordingEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", CHAT, {"messages": [user("Hello?")], **given})
    (sampling,) = engine.samplings
    assert {name: getattr(sampling, name) for name in expected} == expected


async def test_a_reply_without_a_bound_ends_where_the_context_does(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, FastEngine(context=512, kv_capacity=4096)) as client:
        reply = await complete(client, ignore_eos=True)
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["total_tokens"] <= 512


async def test_a_stop_sequence_is_not_part_of_the_reply(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("one two three")
    (choice,) = (await complete(client, stop=[" three", " two"]))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one", "stop")


async def test_an_empty_reply_is_an_empty_text(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("")
    assert (await complete(client))["choices"][0]["message"]["content"] == ""


# Calls


async def test_calls_come_as_compact_json_with_all_its_digits(client: apps.Client, engine: FastEngine) -> None:
    called = written("weather", '{ "city": "Oslo A", "n": 123456789012345678901 }')
    engine.script.append(f"Let me see. {called}")
    (choice,) = (await complete(client, tools=[WEATHER, CLOCK]))["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"].pop("tool_calls")
    assert call.pop("id")
    arguments = '{"city":"Oslo A","n":123456789012345678901}'
    assert call == {"type": "function", "function": {"name": "weather", "arguments": arguments}}
    assert choice["message"]["content"] == "Let me see."


async def test_a_reply_that_is_a_call_has_no_content(client: apps.Client) -> None:
    (choice,) = (await complete(client, tools=[WEATHER], tool_choice="required"))["choices"]
    assert choice["message"]["content"] is None
    assert orjson.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": ""}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "clock"}}])
async def test_a_forced_call_is_made_at_once_unless_thinking_is_asked_for(client: apps.Client, choice: Any) -> None:
    body = {"tools": [CLOCK], "tool_choice": choice}
    for effort, thinks in ((None, False), ("low", False), ("medium", True)):
        reply = await complete(client, **body, **({} if effort is None else {"reasoning_effort": effort}))
        message = reply["choices"][0]["message"]
        assert (message["reasoning"] is not None) is thinks
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["clock"]


async def test_a_call_that_cannot_be_read_is_counted(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("<tool_call>{nonsense}</tool_call>")
    reply = await complete(client, tools=[CLOCK])
    assert "tool_calls" not in reply["choices"][0]["message"]
    assert counters(client).tool_calls_malformed == 1


async def test_one_call_at_most(client: apps.Client, engine: FastEngine) -> None:
    both = written("clock", "{}") + written("clock", "{}")
    for parallel, calls in ((True, 2), (False, 1)):
        engine.script.append(both)
        reply = await complete(client, tools=[CLOCK], parallel_tool_calls=parallel)
        assert len(reply["choices"][0]["message"]["tool_calls"]) == calls


async def test_what_a_call_came_to(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append(written("clock", "{}"))
    called = (await complete(client, tools=[CLOCK]))["choices"][0]["message"]
    result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "12:00"}
    reply = await complete(client, tools=[CLOCK], messages=[user("Hello?"), called, result])
    assert reply["choices"][0]["message"]["content"]


# Reasoning


async def test_reasoning_is_told_apart(client: apps.Client) -> None:
    reply = await complete(client, reasoning_effort="high")
    message = reply["choices"][0]["message"]
    assert message["reasoning"] == f"It may be {message['content']}."
    tokens = reply["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert len(message["reasoning"]) < tokens < reply["usage"]["completion_tokens"]


async def test_reasoning_can_be_left_out(client: apps.Client) -> None:
    reply = await complete(client, reasoning_effort="high", include_reasoning=False, logprobs=True)
    choice = reply["choices"][0]
    assert choice["message"].keys() == {"role", "content"}
    assert choice["message"]["content"] in WORDS
    tokens = reply["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert tokens > 0
    assert len(choice["logprobs"]["content"]) == reply["usage"]["completion_tokens"] - tokens


async def test_reasoning_can_be_left_in(client: apps.Client) -> None:
    shown = await complete(client, reasoning_effort="high", separate_reasoning=False)
    message = shown["choices"][0]["message"]
    assert message.keys() == {"role", "content"}
    assert "</think>" in message["content"]
    hidden = await complete(client, reasoning_effort="high", separate_reasoning=False, include_reasoning=False)
    assert hidden["choices"][0]["message"]["content"] in WORDS


async def test_a_reply_cut_off_in_its_thoughts_has_no_content(client: apps.Client) -> None:
    (choice,) = (await complete(client, reasoning_effort="high", max_tokens=4))["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "reasoning": "It m"}
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("given", "thinks"),
    [
        ({}, False),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "max"}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "xhigh"}, True),
    ],
)
async def test_effort_beats_the_template_option(client: apps.Client, given: dict[str, Any], thinks: bool) -> None:
    reply = await complete(client, **given)
    assert (reply["choices"][0]["message"]["reasoning"] is not None) is thinks


# Formats and probabilities


async def test_a_schema_is_obeyed(client: apps.Client) -> None:
    schema = {"type": "object", "properties": {"up": {"type": "boolean"}}, "required": ["up"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "trend", "schema": schema, "strict": True}}
    reply = await complete(client, response_format=wanted)
    assert orjson.loads(reply["choices"][0]["message"]["content"]) == {"up": False}
    reply = await complete(client, response_format={"type": "json_object"})
    assert orjson.loads(reply["choices"][0]["message"]["content"]) == {}


async def test_a_schema_that_cannot_be_enforced_is_refused(client: apps.Client) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"multipleOf": 3}}}
    status, reply = await apps.call(client, "POST", CHAT, asking(response_format=wanted))
    assert (status, reply["error"]["param"]) == (400, "response_format")


async def test_log_probabilities_of_every_token(client: apps.Client) -> None:
    reply = await complete(client, logprobs=True, top_logprobs=3)
    entries = reply["choices"][0]["logprobs"]["content"]
    assert len(entries) == reply["usage"]["completion_tokens"]
    text = reply["choices"][0]["message"]["content"].encode()
    assert bytes(byte for entry in entries[:-1] for byte in entry["bytes"]) == text
    for entry in entries:
        assert entry["token"] == bytes(entry["bytes"]).decode(errors="replace")
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0] == {name: entry[name] for name in ("token", "logprob", "bytes")}
        assert entry["logprob"] < 0
    bare = await complete(client, logprobs=True)
    assert {len(entry["top_logprobs"]) for entry in bare["choices"][0]["logprobs"]["content"]} == {0}


async def test_msgpack_in_and_out(client: apps.Client) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    async with client.post(CHAT, data=msgpack.packb(asking()), headers=headers) as response:
        assert response.status == 200
        assert ChatCompletion.model_validate(msgpack.unpackb(await response.read()))


async def test_an_unknown_session(client: apps.Client) -> None:
    for session_id, expected in (("gone", 404), ("no such id", 400), ("", 400)):
        status, reply = await apps.call(client, "POST", CHAT, asking(), headers={HEADER: session_id})
        assert status == expected, reply
        assert status == 404 or reply["error"]["param"] == HEADER


async def test_a_reply_written_out_by_its_client_is_an_echo(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    first = await complete(client, IN_SESSION)
    absent = dict.fromkeys(("refusal", "annotations", "audio", "function_call", "tool_calls"))
    said = absent | first["choices"][0]["message"]
    await complete(client, IN_SESSION, messages=[user("Hello?"), said, user("And now?")])
    assert (await ok(client, "GET", "/v1/sessions/s"))["turns"] == 2
