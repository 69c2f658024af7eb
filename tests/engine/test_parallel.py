"""Two ranks of the real engine: what one holds the other does not know, and answers are the same."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from dataclasses import replace

import psutil
import pytest
import pytest_asyncio

from streams.engine.base import Priority, Sampling
from streams.engine.vllm import EngineOptions, Parallel, VllmEngine
from streams.errors import EngineUnavailable
from streams.manager import Limits, Manager
from streams.session import Session
from tests.engine.test_engine import data
from tests.streams.kit import InstantLog

# Two loads, on a machine that may do other things.
pytestmark = pytest.mark.timeout(600)

QUESTION = "Which reading is the highest?"


@pytest_asyncio.fixture(scope="module")
async def ranked(engine_options: EngineOptions) -> AsyncIterator[VllmEngine]:
    """Two ranks, each of which has a pool that holds two contexts."""
    options = replace(engine_options, context=2048, kv_cache_bytes=256 << 20, parallel=Parallel(data=2))
    engine = await asyncio.to_thread(VllmEngine.load, options)
    yield engine
    await engine.close()


async def ask(engine: VllmEngine, prompt: list[int], rank: int) -> tuple[list[int], int]:
    """The answer's tokens, and how many of the prompt's were cached."""
    pieces = [p async for p in engine.generate(prompt, Sampling(max_tokens=4), Priority.FOREGROUND, rank)]
    return [token for piece in pieces for token in piece.token_ids], pieces[-1].cached_tokens


async def question(manager: Manager, session: Session) -> tuple[str, int]:
    prompt = await manager.questions.prompt(session, manager.questions.encode(QUESTION))
    reply = manager.questions.reply(prompt, Sampling(max_tokens=4))
    text = "".join([delta.content async for delta in reply.deltas()])
    return text, reply.cached_tokens


def test_capacity_is_that_of_a_rank(ranked: VllmEngine) -> None:
    facts = ranked.facts
    assert facts.ranks == 2
    assert facts.context <= facts.kv_capacity < 3 * facts.context


async def test_what_a_rank_holds_is_its_own(ranked: VllmEngine, vllm_engine: VllmEngine) -> None:
    for rank in range(2):
        stream = data(ranked, 100 + rank, 320)
        prompt = [*stream, *ranked.tokenizer.encode("\nThe number after these is")]
        held = ranked.hold(Priority.INGEST, rank)
        for start in range(0, len(stream), 64):
            await held.extend(stream[start : start + 64])
        here, cached = await ask(ranked, prompt, rank)
        there, nothing = await ask(ranked, prompt, 1 - rank)
        assert (cached, nothing) == (len(stream), 0)
        assert here == there == (await ask(vllm_engine, prompt, 0))[0]
        await held.release()


async def test_streams_are_spread_and_questions_follow_them(ranked: VllmEngine, vllm_engine: VllmEngine) -> None:
    lines = [f"sensor {n}: {n * 37 % 101}" for n in range(40)]
    async with Manager(vllm_engine, Limits(), InstantLog()) as one:
        session = await one.create("s")
        await one.push(session, lines)
        await session.resident(len(lines), 60)
        alone, _ = await question(one, session)
    async with Manager(ranked, Limits(), InstantLog()) as manager:
        sessions = [await manager.create(name) for name in ("a", "b")]
        assert [session.rank for session in sessions] == [0, 1]
        await asyncio.gather(*(manager.push(session, lines) for session in sessions))
        await asyncio.gather(*(session.resident(len(lines), 60) for session in sessions))
        for session, (text, cached) in zip(
            sessions, await asyncio.gather(*(question(manager, s) for s in sessions)), strict=True
        ):
            assert text == alone
            assert cached == session.tokens


async def test_when_one_rank_dies_all_do_and_nothing_is_left(ranked: VllmEngine) -> None:
    """The last one: it ends the engine that the others share."""
    processes = ranked.processes
    assert len(processes) == 3, "two ranks, and what vLLM coordinates them with"
    answers = [ranked.generate([1, 2, 3], Sampling(1500, ignore_eos=True), Priority.FLASH, rank) for rank in (0, 1)]
    for answer in answers:
        await anext(answer)
    psutil.Process(processes[1]).kill()
    for answer in answers:
        with pytest.raises(EngineUnavailable):
            async for _ in answer:
                pass
    assert ranked.dead
    await ranked.close()
    multiprocessing.active_children()  # reaps them
    assert not [pid for pid in processes if psutil.pid_exists(pid)]
