"""OpenAI's own client, synchronous."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import layerscale
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from tests.clients.shapes import HEADER, LINES, TOOLS, user, valid_order
from tests.servers import Server


@pytest.fixture(scope="module")
def chat(server: Server) -> Iterator[Any]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client.chat.completions


def test_a_completion(chat: Any) -> None:
    reply = chat.create(model="any", messages=[user("Say hello.")], max_tokens=8, temperature=0)
    (choice,) = reply.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.message.tool_calls is None
    assert choice.finish_reason in ("stop", "length")
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens >= 0
    assert reply.object == "chat.completion"
    assert reply.id.startswith("chatcmpl-")
    again = chat.create(model="other", messages=[user("Say hello.")], max_tokens=8, temperature=0)
    assert again.choices[0].message.content == choice.message.content
    assert again.model == reply.model, "the server's name, whatever was asked for"


def test_a_stream(chat: Any) -> None:
    whole = chat.create(model="x", messages=[user("Count.")], max_tokens=12, temperature=0)
    stream = chat.create(
        model="x",
        messages=[user("Count.")],
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1


def test_stop_seed_and_ignore_eos(chat: Any) -> None:
    same = [
        chat.create(model="x", messages=[user("Tell a story.")], max_tokens=12, seed=7, temperature=1.0)
        for _ in range(2)
    ]
    assert same[0].choices[0].message.content == same[1].choices[0].message.content
    long = chat.create(model="x", messages=[user("Hi")], max_tokens=40, temperature=0, extra_body={"ignore_eos": True})
    assert (long.usage.completion_tokens, long.choices[0].finish_reason) == (40, "length")
    text = long.choices[0].message.content
    stop = text[5:8]
    cut = chat.create(
        model="x", messages=[user("Hi")], max_tokens=40, temperature=0, stop=[stop], extra_body={"ignore_eos": True}
    )
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_logprobs(chat: Any) -> None:
    reply = chat.create(
        model="x", messages=[user("Yes or no?")], max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == reply.usage.completion_tokens
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob >= token.logprob
        assert bytes(token.bytes).decode("utf-8", "replace") == token.token
    assert tokens[0].token == tokens[0].top_logprobs[0].token, "greedily, the most likely one"
    stream = chat.create(
        model="x", messages=[user("Yes or no?")], max_tokens=4, temperature=0, logprobs=True, stream=True
    )
    listed = [chunk.choices[0].logprobs.content for chunk in stream if chunk.choices[0].logprobs]
    assert [len(entries) for entries in listed] == [reply.usage.completion_tokens], "all at once, at the end"


def test_a_named_call_obeys_its_schema(chat: Any) -> None:
    reply = chat.create(
        model="x",
        messages=[user("Buy 5 shares of Microsoft.")],
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "order"}},
        temperature=1.0,
        max_tokens=200,
    )
    (choice,) = reply.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "order")
    assert valid_order(call.function.arguments)


def test_a_required_call_is_one_of_the_tools(chat: Any) -> None:
    reply = chat.create(
        model="x",
        messages=[user("Weather in Rome?")],
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
    )
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name in ("order", "weather")
    assert isinstance(json.loads(call.function.arguments), dict)


def test_a_streamed_call_comes_in_two_chunks(chat: Any) -> None:
    chunks = list(
        chat.create(
            model="x",
            messages=[user("Buy.")],
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "order"}},
            max_tokens=200,
            stream=True,
        )
    )
    deltas = [chunk.choices[0].delta.tool_calls[0] for chunk in chunks if chunk.choices[0].delta.tool_calls]
    opener, rest = deltas
    assert (opener.index, opener.type, opener.function.name, opener.function.arguments) == (0, "function", "order", "")
    assert opener.id
    assert rest.index == 0
    assert valid_order(rest.function.arguments)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_tools_that_may_not_be_used(chat: Any) -> None:
    reply = chat.create(model="x", messages=[user("Hi")], tools=TOOLS, tool_choice="none", max_tokens=6)
    assert reply.choices[0].message.tool_calls is None


def test_a_tools_answer_goes_back(chat: Any) -> None:
    asked: list[Any] = [user("Buy 5 shares of Microsoft.")]
    first = chat.create(
        model="x",
        messages=asked,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "order"}},
        max_tokens=200,
    )
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "filled at 412.20"}
    last = chat.create(model="x", messages=[*asked, message, result], tools=TOOLS, max_tokens=8)
    assert last.usage.prompt_tokens > first.usage.prompt_tokens


class Reading(BaseModel):
    trend: Literal["rising", "falling", "steady"]
    degrees: int = Field(ge=0, le=200)


def test_structured_output(chat: Any) -> None:
    parsed = chat.parse(model="x", messages=[user("The boiler rises to 80 degrees.")], response_format=Reading)
    assert isinstance(parsed.choices[0].message.parsed, Reading)
    reply = chat.create(
        model="x", messages=[user("An object, please.")], response_format={"type": "json_object"}, max_tokens=300,
        temperature=0,
    )  # fmt: skip
    if reply.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(reply.choices[0].message.content), dict)


# Sessions


def test_turns_of_a_session(chat: Any, client: layerscale.LayerScale, session: str) -> None:
    bound = {"extra_headers": {HEADER: session}}
    client.sessions.push(session, LINES, wait=True, wait_timeout=60)
    messages: list[Any] = [user("How warm is the boiler?")]
    cached = []
    for turn in range(3):
        reply = chat.create(model="x", messages=messages, max_tokens=8, temperature=0, **bound)
        cached.append(reply.usage.prompt_tokens_details.cached_tokens)
        assert reply.usage.prompt_tokens > len(LINES) * 8, "the data is in the prompt"
        messages += [reply.choices[0].message, user(f"And now, {turn}?")]
        client.sessions.push(session, f"{turn}:30 boiler 75 C", wait=True, wait_timeout=60)
    assert cached == sorted(cached)
    assert cached[0] < cached[-1]
    state = client.sessions.get(session)
    assert (state.turns, state.data_version) == (3, 1 + 3 + 3)
    before = state.tokens
    # Another history: the turns are cut, the data stays.
    chat.create(model="x", messages=[user("Start over.")], max_tokens=4, **bound)
    state = client.sessions.get(session)
    assert state.turns == 4
    assert state.tokens < before
    assert state.tokens > len(LINES) * 8


def test_read_your_writes(chat: Any, client: layerscale.LayerScale, session: str) -> None:
    ack = client.sessions.push(session, LINES)
    reply = chat.create(
        model="x",
        messages=[user("What came?")],
        max_tokens=2,
        extra_headers={HEADER: session},
        extra_body={"after": ack.total_pushed},
    )
    assert reply.usage.prompt_tokens > len(LINES) * 8


def test_flash_queries_follow_a_turn(chat: Any, client: layerscale.LayerScale, session: str) -> None:
    client.sessions.flash(session, "Is it warm?", max_tokens=2)
    chat.create(model="x", messages=[user("It is 90 degrees.")], max_tokens=2, extra_headers={HEADER: session})
    with client.sessions.events(session) as events:
        for event in events:
            if event.type == "flash_ready" and event.data_version == 1:
                break
    (query,) = client.sessions.list_flash(session).data
    assert query.fresh


def test_a_second_turn_is_a_conflict(chat: Any, session: str) -> None:
    bound = {"extra_headers": {HEADER: session}, "extra_body": {"ignore_eos": True}}
    running = chat.create(model="x", messages=[user("Go on.")], max_tokens=4000, stream=True, **bound)
    next(iter(running))
    with pytest.raises(openai.ConflictError) as refused:
        chat.create(model="x", messages=[user("Me too.")], max_tokens=1, **bound)
    assert refused.value.code == "session_busy"
    running.close()


# Refusals


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"user": "me"}, "user"),
        ({"extra_body": {"session_id": "s"}}, "session_id"),
        ({"extra_body": {"top_k": 4}}, "top_k"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "none"}}}, "tool_choice"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages"),
    ],
)
def test_refusals_name_the_field(chat: Any, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.create(**{"model": "x", "messages": [user("Hi")], **fields})
    error = refused.value
    assert error.type == "invalid_request_error"
    assert (error.param or "").startswith(param) or param in error.message


def test_a_prompt_that_is_too_long(chat: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.create(model="x", messages=[user("word " * 20_000)], max_tokens=1)
    assert refused.value.code == "context_length_exceeded"


def test_an_unknown_session(chat: Any) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        chat.create(model="x", messages=[user("Hi")], max_tokens=1, extra_headers={HEADER: "nowhere"})
    assert refused.value.code == "session_not_found"
