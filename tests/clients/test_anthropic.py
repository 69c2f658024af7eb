"""Anthropic's own client, synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import layerscale
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tests.clients.shapes import ANTHROPIC_TOOLS, HEADER, LINES, user, valid_order
from tests.servers import Server


@pytest.fixture(scope="module")
def messages(server: Server) -> Iterator[Any]:
    with Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client.messages


@pytest.fixture
async def amessages(server: Server) -> AsyncIterator[Any]:
    async with AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client.messages


GREEDY = {"model": "x", "extra_body": {"temperature": 0}}


def test_a_message(messages: Any) -> None:
    reply = messages.create(messages=[user("Say hello.")], max_tokens=8, system="Be brief.", **GREEDY)
    assert (reply.type, reply.role) == ("message", "assistant")
    assert reply.id.startswith("msg_")
    (block,) = reply.content
    assert block.type == "text"
    assert block.text
    assert reply.stop_reason in ("end_turn", "max_tokens")
    usage = reply.usage
    assert usage.cache_creation_input_tokens == 0
    counted = messages.count_tokens(model="x", messages=[user("Say hello.")], system="Be brief.")
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens


def test_a_stream(messages: Any) -> None:
    whole = messages.create(messages=[user("Count.")], max_tokens=10, **GREEDY)
    with messages.stream(messages=[user("Count.")], max_tokens=10, **GREEDY) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_stop_sequences(messages: Any) -> None:
    body = {"temperature": 0, "ignore_eos": True}
    long = messages.create(model="x", messages=[user("Hi")], max_tokens=40, extra_body=body)
    assert long.stop_reason == "max_tokens"
    stop = long.content[0].text[5:8]
    cut = messages.create(model="x", messages=[user("Hi")], max_tokens=40, stop_sequences=[stop], extra_body=body)
    assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", stop)


@pytest.mark.parametrize("choice", [{"type": "tool", "name": "order"}, {"type": "any"}])
def test_forced_tool_use(messages: Any, choice: dict[str, Any]) -> None:
    tools = ANTHROPIC_TOOLS[:1]
    reply = messages.create(
        model="x", messages=[user("Buy Microsoft.")], max_tokens=400, tools=tools,
        tool_choice={**choice, "disable_parallel_tool_use": True},
    )  # fmt: skip
    assert reply.stop_reason == "tool_use"
    (block,) = [block for block in reply.content if block.type == "tool_use"]
    assert block.name == "order"
    assert valid_order(block.input)
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "filled"}]}
    last = messages.create(
        model="x",
        messages=[user("Buy Microsoft."), {"role": "assistant", "content": reply.content}, user([result])],  # type: ignore[arg-type]
        max_tokens=6,
        tools=tools,
    )
    assert last.stop_reason in ("end_turn", "max_tokens", "tool_use")


def test_a_streamed_tool_use(messages: Any) -> None:
    events = list(
        messages.create(
            model="x", messages=[user("Buy.")], max_tokens=200, tools=ANTHROPIC_TOOLS,
            tool_choice={"type": "tool", "name": "order"}, stream=True,
        )
    )  # fmt: skip
    deltas = [e.delta for e in events if e.type == "content_block_delta" and e.delta.type == "input_json_delta"]
    (delta,) = deltas
    assert valid_order(delta.partial_json)
    assert [event.type for event in events][-2:] == ["message_delta", "message_stop"]
    assert events[-2].delta.stop_reason == "tool_use"


def test_turns_of_a_session_on_both_surfaces(messages: Any, client: layerscale.LayerScale, session: str) -> None:
    client.sessions.push(session, LINES, wait=True, wait_timeout=60)
    bound = {"extra_headers": {HEADER: session}, **GREEDY}
    first = messages.create(messages=[user("How warm?")], max_tokens=6, **bound)
    total = first.usage.input_tokens + first.usage.cache_read_input_tokens
    assert total > len(LINES) * 8
    text = first.content[0].text
    second = client.chat.create(
        messages=[user("How warm?"), {"role": "assistant", "content": text}, user("And now?")],
        max_tokens=6,
        session_id=session,
    )
    assert second.usage.prompt_tokens_details.cached_tokens >= total - 64
    assert client.sessions.get(session).turns == 2


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"extra_body": {"top_k": 4}}, "top_k"),
        ({"messages": [{"role": "system", "content": "x"}]}, "role"),
        ({"extra_body": {"session_id": "s"}}, "session_id"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "budget_tokens"),
        ({"messages": [user("word " * 20_000)]}, "prompt is too long"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [{"type": "image"}]}]}]},
            "tool_result content of type",
        ),
    ],
)
def test_refusals(messages: Any, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        messages.create(**{"model": "x", "messages": [user("Hi")], "max_tokens": 4, **fields})
    body: Any = refused.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "invalid_request_error"
    assert word in body["error"]["message"]
    assert body["request_id"] == refused.value.response.headers["x-request-id"]


def test_an_unknown_session(messages: Any) -> None:
    with pytest.raises(anthropic.NotFoundError):
        messages.create(model="x", messages=[user("Hi")], max_tokens=4, extra_headers={HEADER: "nowhere"})


async def test_a_message_asynchronously(amessages: Any) -> None:
    async with amessages.stream(messages=[user("Count.")], max_tokens=10, **GREEDY) as stream:
        final = await stream.get_final_message()
    whole = await amessages.create(messages=[user("Count.")], max_tokens=10, **GREEDY)
    assert final.content[0].text == whole.content[0].text


async def test_a_conflict_asynchronously(amessages: Any, session: str) -> None:
    bound = {"extra_headers": {HEADER: session}, "extra_body": {"ignore_eos": True}, "model": "x"}
    running = await amessages.create(messages=[user("Go on.")], max_tokens=4000, stream=True, **bound)
    await anext(aiter(running))
    with pytest.raises(anthropic.ConflictError):
        await amessages.create(messages=[user("Me too.")], max_tokens=1, **bound)
    await running.close()
