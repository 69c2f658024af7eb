"""Streams over the ranks of an engine: where they are placed, and that all they ask for is asked for there."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import ModelFacts, Sampling
from streams.errors import Unavailable
from streams.manager import Manager
from streams.messages import Conversation, Message, Shape
from streams.ranks import RankBudgets
from streams.session import Session
from streams.window import Window
from tests.engine.fast import FastEngine
from tests.streams.kit import managing, settled, until

FACTS = ModelFacts("m", context=512, block_size=16, kv_capacity=1024, ranks=3)


class Owner:
    def __init__(self, rank: int) -> None:
        self.rank = rank


def test_a_stream_is_placed_where_most_is_free() -> None:
    budgets = RankBudgets(FACTS, reserve=512)
    owners = [Owner(0), Owner(2)]
    budgets.grant(owners[0], 100)
    budgets.grant(owners[1], 10)
    assert budgets.place([0, 2]) == 1
    budgets.grant(Owner(1), 200)
    assert budgets.place([0, 2, 1]) == 2
    budgets.release(owners[0])
    assert budgets.place([2, 1]) == 0


def test_streams_without_tokens_are_spread() -> None:
    budgets, placed = RankBudgets(FACTS, reserve=512), list[int]()
    for _ in range(7):
        placed.append(budgets.place(placed))
    assert placed == [0, 1, 2, 0, 1, 2, 0]


def test_a_full_rank_refuses_though_others_have_room() -> None:
    budgets = RankBudgets(FACTS, reserve=512)
    budgets.grant(Owner(1), 512)
    with pytest.raises(Unavailable):
        budgets.grant(Owner(1), 1)
    budgets.grant(Owner(0), 512)
    assert (budgets.granted, budgets.limit, budgets.capacity) == (1024, 3 * 512, 3 * 1024)


async def ask(manager: Manager, session: Session) -> int:
    """How many tokens of a question's prompt were cached."""
    prompt = manager.questions.prompt(session, manager.questions.encode("?"))
    with manager.questions.foreground(session):
        reply = manager.questions.reply(prompt, Sampling(max_tokens=2))
        async for _ in reply.deltas():
            pass
    return reply.cached_tokens


async def test_everything_of_a_stream_is_asked_of_its_rank() -> None:
    engine = FastEngine(ranks=2)
    async with managing(engine) as manager:
        for name in "abcd":
            session = manager.create(name, window=Window(256))
            engine.calls.clear()
            for n in range(6):
                await manager.push(session, [f"{name}{n} " * 12])
                await settled(session)
                await until(lambda session=session: not manager.moving(session))
                assert await ask(manager, session) == session.tokens // 16 * 16
            assert session.evicted, "its window has moved"
            said = Conversation((Message("user", "Hi"),))
            await manager.chat.warm(session, said)
            async with manager.chat.reply(said, Shape(), Sampling(max_tokens=8), session) as reply:
                async for _ in reply.deltas():
                    pass
            await until(lambda session=session: session.kv_tokens == session.tokens)
            assert {call.rank for call in engine.calls} == {session.rank}
        assert [session.rank for session in manager.sessions()] == [0, 1, 0, 1]


async def test_requests_without_a_stream_go_where_fewest_run() -> None:
    engine = FastEngine(ranks=2)
    said = Conversation((Message("user", "Hi"),))
    async with managing(engine) as manager:
        session = manager.create("s", system="A stream.")
        await settled(session)
        engine.calls.clear()
        engine.generate_gate.clear()
        assert session.rank == 0

        async def alone() -> None:
            async with manager.chat.reply(said, Shape(), Sampling(max_tokens=2)) as reply:
                async for _ in reply.deltas():
                    pass

        asking = [asyncio.create_task(ask(manager, session))]
        await until(lambda: engine.running == 1)
        for running in (2, 3, 4):
            asking.append(asyncio.create_task(alone()))
            await until(lambda running=running: engine.running == running)
        engine.generate_gate.set()
        await asyncio.gather(*asking)
        assert [call.rank for call in engine.calls if call.kind == "generate"] == [0, 1, 0, 1]


async def test_ranks_read_beside_each_other() -> None:
    engine = FastEngine(ranks=2)
    async with managing(engine) as manager:
        sessions = [manager.create(name) for name in "abcd"]
        engine.ingest_gate.clear()
        for session in sessions:
            await manager.push(session, ["x" * 500])
        await until(lambda: {call.rank for call in engine.calls} == {0, 1})
        engine.ingest_gate.set()
        for session in sessions:
            await settled(session)
