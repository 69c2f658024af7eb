"""Streams over the ranks of an engine: where they are placed, and that all they ask for is asked for there."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import ModelFacts, Sampling
from streams.errors import Unavailable
from streams.ingest import Entry
from streams.log import Options
from streams.manager import Manager
from streams.messages import Conversation, Message, Shape
from streams.ranks import RankBudgets
from streams.records import Codec, Pushed, Settled
from streams.recovery import Stored
from streams.session import Session
from streams.window import NO_WINDOW, Window
from tests.engine.fast import FastEngine
from tests.streams.kit import at_rest, held_by_sessions, managing, settled, until

FACTS = ModelFacts("m", context=512, block_size=16, kv_capacity=1024, ranks=3)
LINES = [f"line {number:03d}" for number in range(40)]


def test_a_stream_is_placed_where_streams_leave_most_room() -> None:
    budgets: RankBudgets[str] = RankBudgets(FACTS, reserve=512)
    assert budgets.place([(0, 100), (2, 10)]) == 1
    assert budgets.place([(0, 100), (2, 10), (1, 200)]) == 2
    assert budgets.place([(2, 10), (1, 200)]) == 0
    budgets.ranks[0].limit = 0
    assert budgets.place([]) == 1


def test_streams_without_tokens_are_spread() -> None:
    budgets: RankBudgets[str] = RankBudgets(FACTS, reserve=512)
    placed: list[int] = []
    for _ in range(7):
        placed.append(budgets.place((rank, 0) for rank in placed))
    assert placed == [0, 1, 2, 0, 1, 2, 0]


def test_a_full_rank_refuses_though_others_have_room() -> None:
    budgets: RankBudgets[str] = RankBudgets(FACTS, reserve=512)
    budgets.ranks[1].grant("one", 512)
    with pytest.raises(Unavailable):
        budgets.ranks[1].grant("two", 1)
    budgets.ranks[0].grant("two", 512)
    assert (budgets.granted, budgets.limit, budgets.capacity) == (1024, 3 * 512, 3 * 1024)


async def ask(manager: Manager, session: Session) -> int:
    """How many tokens of a question's prompt were cached."""
    prompt = await manager.questions.prompt(session, manager.questions.encode("?"))
    with manager.questions.foreground(session):
        reply = manager.questions.reply(prompt, Sampling(max_tokens=2))
        async for _ in reply.deltas():
            pass
    return reply.cached_tokens


async def test_everything_of_a_stream_is_asked_of_its_rank() -> None:
    engine = FastEngine(ranks=2)
    async with managing(engine) as manager:
        for name in "abcd":
            session = await manager.create(name, window=Window(256))
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
        assert {session.rank for session in manager.sessions()} == {0, 1}


async def test_requests_without_a_stream_go_where_fewest_run() -> None:
    engine = FastEngine(ranks=2)
    said = Conversation((Message("user", "Hi"),))
    async with managing(engine) as manager:
        session = await manager.create("s", system="A stream.")
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
        sessions = [await manager.create(name) for name in "abcd"]
        engine.ingest_gate.clear()
        for session in sessions:
            await manager.push(session, ["x" * 500])
        await until(lambda: {call.rank for call in engine.calls} == {0, 1})
        engine.ingest_gate.set()
        for session in sessions:
            await settled(session)


def pool(streams: int) -> FastEngine:
    """Two ranks, each of which holds so many streams of 400 tokens, and a question."""
    return FastEngine(context=1024, block_size=16, kv_capacity=1024 + streams * 400, ranks=2)


async def test_room_is_made_on_a_streams_own_rank() -> None:
    async with managing(pool(1)) as manager:
        sessions = [await manager.create(name) for name in "abcd"]
        assert [session.rank for session in sessions] == [0, 1, 0, 1]
        for session in sessions[:3]:
            await manager.push(session, LINES)
            await settled(session)
        assert [session.residency for session in sessions[:3]] == ["warm", "resident", "resident"]
        await ask(manager, sessions[0])
        await until(lambda: sessions[0].residency == "resident")
        assert [session.residency for session in sessions[1:3]] == ["resident", "warm"]
        await until(lambda: at_rest(manager))
        assert manager.budget.granted == held_by_sessions(manager)


async def test_who_waits_for_one_rank_is_in_nobodys_way_on_another() -> None:
    async with managing(pool(1)) as manager:
        one, other, behind, same = [await manager.create(name) for name in "abcd"]
        with manager._holdings[0].use(one.held):
            await manager.push(one, LINES)
            await settled(one)
            await manager.push(behind, LINES)
            await until(lambda: manager._holdings[0]._claims)
            for session in (other, same):
                await manager.push(session, LINES)
                await settled(session)
            assert (behind.version, other.residency, same.residency) == (0, "warm", "resident")
        await settled(behind)


async def test_sessions_that_come_back_are_spread_by_their_sizes() -> None:
    sizes = {"a": 40, "b": 10, "c": 10, "d": 40, "e": 10}
    async with managing(FastEngine(ranks=2)) as manager:
        for name, size in sizes.items():
            options = Options(1.0, manager._fingerprint, None, None, NO_WINDOW, False, frozenset())
            entries = tuple(Entry(manager.questions.encode(text), len(text)) for text in LINES[:size])
            records = [Codec(None).pack(record) for record in (Pushed(entries), Settled(1, size, 0.1))]
            await manager.adopt(name, Stored(options, None, tuple(records), 2, None, None))
        assert manager.budget.granted == 0
        assert {session.id: session.rank for session in manager.sessions()} == {"a": 0, "b": 1, "c": 1, "d": 1, "e": 0}
        manager.restore(manager.sessions())
        await until(lambda: all(session.kv_tokens == session.tokens for session in manager.sessions()))


async def test_all_ranks_are_read_again_when_the_engine_is_back() -> None:
    engine = FastEngine(ranks=2)
    async with managing(engine) as manager:
        sessions = [await manager.create(name) for name in "abcd"]
        for session in sessions:
            await manager.push(session, LINES)
            await settled(session)
        engine.kill()
        await until(lambda: not manager.budget.granted)
        engine.revive()
        engine.calls.clear()
        engine.ingest_gate.clear()
        await until(lambda: {call.rank for call in engine.calls} == {0, 1})
        engine.ingest_gate.set()
        await until(lambda: all(session.kv_tokens == session.tokens for session in sessions))
        assert [session.rank for session in sessions] == [0, 1, 0, 1]
