"""The official client's chat surfaces and warm turns."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import layerscale
import pytest
from layerscale import AsyncLayerScale

from tests.clients.shapes import ANTHROPIC_TOOLS, LINES, TOOLS, user, valid_order
from tests.servers import Server

LONG = "\n".join(f"{number:04d} flange pressure {number % 37}.25 bar nominal" for number in range(60))


def test_chat_and_messages(client: layerscale.LayerScale) -> None:
    chat = client.chat.create(messages=[user("Hello?")], max_tokens=6, temperature=0)
    message = client.messages.create(messages=[user("Hello?")], max_tokens=6, temperature=0)
    assert chat.choices[0].message.content == message.content[0].text
    assert chat.usage.prompt_tokens == message.usage.input_tokens + message.usage.cache_read_input_tokens
    assert client.messages.count_tokens(messages=[user("Hello?")]).input_tokens == chat.usage.prompt_tokens
    chunks = list(client.chat.stream(messages=[user("Hello?")], max_tokens=6, temperature=0))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == chat.choices[0].message.content
    events = list(client.messages.stream(messages=[user("Hello?")], max_tokens=6, temperature=0))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


def test_forced_calls(client: layerscale.LayerScale) -> None:
    chat = client.chat.create(
        messages=[user("Buy.")],
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "order"}},
        max_tokens=200,
    )
    assert valid_order(chat.choices[0].message.tool_calls[0].function.arguments)
    message = client.messages.create(
        messages=[user("Buy.")], tools=ANTHROPIC_TOOLS, tool_choice={"type": "tool", "name": "order"}, max_tokens=200
    )
    assert valid_order(message.content[-1].input)


def test_turns(client: layerscale.LayerScale, session: str) -> None:
    client.sessions.push(session, LINES, wait=True, wait_timeout=60)
    messages: list[Any] = [user("How warm?")]
    first = client.chat.create(messages=messages, max_tokens=6, session_id=session)
    messages += [first.choices[0].message.model_dump(exclude_none=True), user("And now?")]
    second = client.chat.create(messages=messages, max_tokens=6, session_id=session)
    assert second.usage.prompt_tokens_details.cached_tokens > first.usage.prompt_tokens - 64
    state = client.sessions.get(session)
    assert (state.turns, state.busy) == (2, False)


def test_warm_then_turn(client: layerscale.LayerScale, session: str) -> None:
    client.sessions.push(session, LINES[:5], wait=True, wait_timeout=60)
    version = client.sessions.get(session).data_version
    warmed = client.sessions.warm(session, messages=[user(LONG)])
    assert (warmed.finish_reason, warmed.data_version) == ("warmed", version)
    assert warmed.prompt_tokens > warmed.cached_tokens
    assert client.sessions.warm(session, messages=[user(LONG)]).finish_reason == "covered"
    turn = client.chat.create(messages=[user(LONG)], max_tokens=2, session_id=session)
    assert turn.usage.prompt_tokens_details.cached_tokens >= warmed.prompt_tokens - 64


def test_a_turn_stops_a_warm_turn(client: layerscale.LayerScale, server: Server, session: str) -> None:
    client.sessions.push(session, LINES[:5], wait=True, wait_timeout=60)
    with ThreadPoolExecutor(1) as pool, layerscale.LayerScale(base_url=server.url, max_retries=0) as other:
        warming = pool.submit(other.sessions.warm, session, messages=[user(LONG)])
        time.sleep(0.2)
        client.chat.create(messages=[user("Quick!")], max_tokens=2, session_id=session)
        # The in-process engine may have been done before the turn came.
        assert warming.result(60).finish_reason in ("cancelled", "warmed")
    assert client.sessions.get(session).turns == 1


@pytest.mark.parametrize("surface", ["chat", "messages"])
def test_errors_are_the_clients_own(client: layerscale.LayerScale, surface: str) -> None:
    create = getattr(client, surface).create
    with pytest.raises(layerscale.BadRequestError) as overflow:
        create(messages=[user("word " * 20_000)], max_tokens=4)
    assert overflow.value.context_overflow
    with pytest.raises(layerscale.NotFoundError):
        create(messages=[user("Hi")], max_tokens=4, session_id="nowhere")
    with pytest.raises(layerscale.BadRequestError):
        create(messages=[user("Hi")], max_tokens=4, request_options={"headers": {}}, nonsense=1)


def test_a_prompt_too_long_to_warm(client: layerscale.LayerScale, session: str) -> None:
    with pytest.raises(layerscale.BadRequestError) as overflow:
        client.sessions.warm(session, messages=[user("word " * 20_000)])
    assert overflow.value.context_overflow


async def test_everything_asynchronously(server: Server, session: str) -> None:
    async with AsyncLayerScale(base_url=server.url, max_retries=0) as client:
        await client.sessions.push(session, LINES, wait=True, wait_timeout=60)
        warmed = await client.sessions.warm(session, messages=[user("How warm?")])
        assert warmed.finish_reason == "warmed"
        stream = await client.chat.stream(messages=[user("How warm?")], max_tokens=4, session_id=session)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        second = await client.messages.create(
            messages=[user("How warm?"), {"role": "assistant", "content": text}, user("Sure?")],
            max_tokens=4,
            session_id=session,
        )
        assert second.usage.cache_read_input_tokens > 100
        assert (await client.sessions.get(session)).turns == 2
