"""Twelve streams round robin through a pool of the real engine that holds three."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import Sampling
from streams.engine.vllm import VllmEngine
from streams.manager import Limits, Manager
from streams.session import Session
from tests.streams.kit import InstantLog

ROUNDS = 2
WATCHDOG_SECONDS = 300


async def ask(manager: Manager, session: Session) -> str:
    questions = manager.questions
    prompt = await questions.prompt(session, questions.encode("Which number came last?"))
    with questions.foreground(session):
        reply = questions.reply(prompt, Sampling(max_tokens=6))
        async for _ in reply.deltas():
            pass
    return reply.message.content


@pytest.mark.timeout(600)
async def test_twelve_streams_take_turns_in_a_pool_that_holds_three(vllm_engine: VllmEngine) -> None:
    data: dict[str, list[str]] = {f"s{number:02d}": [] for number in range(12)}
    answers: dict[str, str] = {}
    async with asyncio.timeout(WATCHDOG_SECONDS), Manager(vllm_engine, Limits(), InstantLog()) as manager:
        # As if the pool were smaller; what is held is checked against this.
        manager.budget.ranks[0].limit = 3 * 256
        sessions = [await manager.create(name) for name in data]
        for part in range(ROUNDS):
            for session in sessions:
                new = [f"{session.id} {part} value {number * 37 % 100}" for number in range(10)]
                data[session.id] += new
                await manager.push(session, new)
                await session.resident(session.queue.total_pushed, 60)
                answers[session.id] = await ask(manager, session)
                assert manager.budget.granted <= manager.budget.limit
        assert {session.residency for session in sessions} == {"resident", "warm"}
        assert [session.failure for session in sessions] == [None] * 12
        for session in sessions:
            await manager.delete(session.id)
        for name, entries in data.items():
            alone = await manager.create(f"{name}-alone")
            await manager.push(alone, entries)
            await alone.resident(len(entries), 60)
            assert await ask(manager, alone) == answers[name]
            await manager.delete(alone.id)
