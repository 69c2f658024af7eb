"""The official client, asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import layerscale
import pytest
from layerscale import AsyncLayerScale

from tests.servers import Server

LINES = [f"tick {number} price {100 + number % 7}" for number in range(30)]


@pytest.fixture
async def aclient(server: Server) -> AsyncIterator[AsyncLayerScale]:
    async with AsyncLayerScale(base_url=server.url, max_retries=0) as client:
        yield client


@pytest.fixture
async def asession(aclient: AsyncLayerScale) -> AsyncIterator[str]:
    session_id = (await aclient.sessions.create()).id
    yield session_id
    await aclient.sessions.delete(session_id)


async def test_push_ask_and_flash(aclient: AsyncLayerScale, asession: str) -> None:
    await aclient.sessions.flash(asession, "Which way is the price moving?", max_tokens=3)
    async with asyncio.timeout(120):
        await aclient.sessions.push(asession, LINES, wait=True, wait_timeout=60)
        async for event in await aclient.sessions.events(asession):
            if event.type == "flash_ready":
                break
        (query,) = (await aclient.sessions.list_flash(asession)).data
        assert query.fresh
        hit = await aclient.sessions.generate(asession, prompt=query.query)
        assert (hit.flash, hit.text) == (True, query.value)


async def test_questions_run_concurrently(aclient: AsyncLayerScale, asession: str) -> None:
    await aclient.sessions.push(asession, LINES, wait=True, wait_timeout=60)
    answers = await asyncio.gather(
        *(aclient.sessions.generate(asession, prompt=f"What was tick {n}?", max_tokens=4) for n in range(8))
    )
    assert {answer.data_version for answer in answers} == {1}


async def test_a_streamed_answer(aclient: AsyncLayerScale, asession: str) -> None:
    await aclient.sessions.push(asession, LINES, wait=True, wait_timeout=60)
    stream = await aclient.sessions.generate_stream(asession, prompt="What happened?", max_tokens=6, ignore_eos=True)
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].done is True
    assert chunks[-1].usage.completion_tokens == 6


async def test_the_socket(aclient: AsyncLayerScale, asession: str) -> None:
    async with asyncio.timeout(120), aclient.sessions.ws(asession) as socket:
        events = socket.__aiter__()
        assert (await anext(events)).type == "connected"
        await socket.push(LINES)
        assert (await anext(events)).type == "push_ack"
        assert (await anext(events)).type == "data_updated"
        await socket.ping()
        assert (await anext(events)).type == "pong"


async def test_a_deleted_session_is_gone(aclient: AsyncLayerScale) -> None:
    session_id = (await aclient.sessions.create()).id
    await aclient.sessions.delete(session_id)
    with pytest.raises(layerscale.NotFoundError):
        await aclient.sessions.get(session_id)
