"""The official client of the old generation, asynchronous: what it does in ways of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.clients import figures, old
from tests.servers import Server

layerscale: Any = old.load()

READINGS = [{"sid": f"boiler-{n % 2}", "val": 70.0 + n % 9, "lo": 60.0, "hi": 75.0} for n in range(30)]


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[Any]:
    async with layerscale.AsyncLayerScale(base_url=server.url, max_retries=0) as client:
        yield client


@pytest.fixture
async def asession(aclient: Any) -> AsyncIterator[str]:
    session_id = (await aclient.sessions.create(type="iot", mark_prefix=True)).session_id
    yield session_id
    await aclient.sessions.delete(session_id)


async def test_push_ask_and_flash(aclient: Any, asession: str) -> None:
    assert (await aclient.health.check()).ok
    assert (await aclient.models.list()).data
    assert asession in [one.session_id for one in (await aclient.sessions.list()).sessions]
    assert (await aclient.sessions.flash(asession, "Is it hot?", max_tokens=3)).id == 1
    async with asyncio.timeout(120):
        await aclient.sessions.push(asession, READINGS, wait=True, wait_timeout=60)
        async for event in await aclient.sessions.events(asession):
            if event.type == "flash_ready":
                break
    (query,) = (await aclient.sessions.list_flash(asession)).flash_queries
    hit = await aclient.sessions.query(asession, prompt="Is it hot?")
    assert (hit.flash, hit.text) == (True, query.value)
    assert (await aclient.sessions.unflash(asession, query.id)).remaining == 0
    stats = (await aclient.sessions.stats(asession)).model_dump()
    assert figures.alike(stats, {"type": "iot", "count": len(READINGS), **figures.iot(READINGS)})
    status = await aclient.sessions.stream_status(asession)
    assert status.statistics.items_processed == len(READINGS)


async def test_append_mark_and_state(aclient: Any, asession: str) -> None:
    added = await aclient.sessions.append(asession, "The boiler was serviced.")
    marked = await aclient.sessions.mark_prefix(asession)
    state = await aclient.sessions.get(asession)
    assert marked.prefix_end == added.total_tokens == state.prefix_end == state.n_tokens


async def test_answers_whole_and_in_pieces(aclient: Any, asession: str) -> None:
    await aclient.sessions.push(asession, READINGS, wait=True, wait_timeout=60)
    answers = await asyncio.gather(
        *(aclient.sessions.query(asession, prompt=f"What was reading {n}?", max_tokens=4) for n in range(4))
    )
    assert {answer.data_version for answer in answers} == {1}
    chunks = [
        chunk
        async for chunk in await aclient.sessions.query_stream(asession, prompt="What was reading 0?", max_tokens=4)
    ]
    assert chunks[-1].text == "".join(chunk.token for chunk in chunks[:-1]) == answers[0].text
    completion = await aclient.completions.create(prompt="Hot is", max_tokens=3)
    assert completion.usage.completion_tokens <= 3
    said = [{"role": "user", "content": "Hot?"}]
    reply = await aclient.chat.create(messages=said, max_tokens=3, session_id=asession)
    assert reply.usage.prompt_tokens > 30
    pieces = [chunk async for chunk in await aclient.chat.stream(messages=said, max_tokens=3)]
    assert pieces[-1].choices[0].finish_reason in ("stop", "length")
    message = await aclient.messages.create(messages=said, max_tokens=3)
    assert message.role == "assistant"
    events = [event async for event in await aclient.messages.stream(messages=said, max_tokens=3)]
    assert events[-1].type == "message_stop"


async def test_the_socket(aclient: Any, asession: str) -> None:
    async with asyncio.timeout(120), aclient.sessions.stream(asession) as socket:
        events = socket.__aiter__()
        assert (await anext(events)).data.streaming is True
        await socket.push(READINGS)
        assert (await anext(events)).type == "push_ack"
        assert (await anext(events)).data.data_count == len(READINGS)
        await socket.ping()
        assert (await anext(events)).type == "pong"
