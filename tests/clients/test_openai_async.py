"""OpenAI's own client, asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.clients.shapes import HEADER, TOOLS, user, valid_order
from tests.servers import Server


@pytest.fixture
async def chat(server: Server) -> AsyncIterator[Any]:
    async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client.chat.completions


async def test_concurrent_completions(chat: Any) -> None:
    replies = await asyncio.gather(
        *(chat.create(model="x", messages=[user(f"Say {n}.")], max_tokens=4, temperature=0) for n in range(6))
    )
    assert all(reply.choices[0].message.content for reply in replies)


async def test_a_stream(chat: Any) -> None:
    stream = await chat.create(model="x", messages=[user("Count.")], max_tokens=8, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


async def test_a_forced_call(chat: Any) -> None:
    named = {"type": "function", "function": {"name": "order"}}
    reply = await chat.create(model="x", messages=[user("Buy.")], tools=TOOLS, tool_choice=named, max_tokens=200)
    assert valid_order(reply.choices[0].message.tool_calls[0].function.arguments)


async def test_a_turn_and_its_conflict(chat: Any, session: str) -> None:
    bound = {"extra_headers": {HEADER: session}, "extra_body": {"ignore_eos": True}}
    running = await chat.create(model="x", messages=[user("Go on.")], max_tokens=4000, stream=True, **bound)
    await anext(aiter(running))
    with pytest.raises(openai.ConflictError):
        await chat.create(model="x", messages=[user("Me too.")], max_tokens=1, **bound)
    await running.close()


async def test_a_bad_request(chat: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await chat.create(model="x", messages=[user("Hi")], n=2)
    assert refused.value.param == "n"
