"""More streams than the KV cache holds: the least recently used ones that rest make room, and none is worse for it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams import questions
from streams.engine.base import Sampling
from streams.errors import Unavailable
from streams.manager import Manager
from streams.places import Place, leaving
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.chatting import conversation, say, user
from tests.streams.kit import SECONDS, at_rest, held_by_sessions, managing, settled, until

LINES = 30


def pool(streams: int, context: int = 1024) -> FastEngine:
    """An engine that holds so many streams of 400 tokens, and a question."""
    return FastEngine(context=context, block_size=16, kv_capacity=context + streams * 400)


def lines(name: str, count: int = LINES) -> list[str]:
    return [f"{name} {number:03d}" for number in range(count)]


async def ask(manager: Manager, session: Session, text: str = "trend?") -> str:
    asked = manager.questions
    prompt = await asked.prompt(session, asked.encode(text))
    with asked.foreground(session):
        reply = asked.reply(prompt, Sampling(max_tokens=8))
        async for _ in reply.deltas():
            pass
    return reply.message.content


async def fresh(name: str, data: list[str], text: str = "trend?") -> str:
    """What a stream answers that has the engine for itself."""
    async with managing(FastEngine(context=1024)) as manager:
        session = await manager.create(name)
        await manager.push(session, data)
        await settled(session)
        return await ask(manager, session, text)


async def resting(manager: Manager) -> None:
    await until(lambda: at_rest(manager))
    assert held_by_sessions(manager) == manager.budget.granted <= manager.budget.limit


async def filled(manager: Manager, *names: str) -> list[Session]:
    sessions = [await manager.create(name) for name in names]
    for session in sessions:
        await manager.push(session, lines(session.id))
        await settled(session)
        await resting(manager)
    return sessions


async def test_twelve_streams_take_turns_in_a_pool_that_holds_three() -> None:
    data: dict[str, list[str]] = {f"s{number:02d}": [] for number in range(12)}
    async with asyncio.timeout(SECONDS), managing(pool(3)) as manager:
        sessions = [await manager.create(name) for name in data]
        for part in range(3):
            for session in sessions:
                new = [f"{session.id} {part} {number:03d}" for number in range(10)]
                data[session.id] += new
                await manager.push(session, new)
                await session.resident(session.queue.total_pushed, SECONDS)
                assert await ask(manager, session) == await fresh(session.id, data[session.id])
                assert manager.budget.granted <= manager.budget.limit
        assert {session.residency for session in sessions} == {"resident", "warm"}
        answers = await asyncio.gather(*(ask(manager, session) for session in sessions))
        assert answers == [await fresh(session.id, data[session.id]) for session in sessions]
        assert [session.failure for session in sessions] == [None] * 12


async def test_all_at_once_nobody_waits_for_ever() -> None:
    async with asyncio.timeout(SECONDS), managing(pool(2)) as manager:
        sessions = [await manager.create(f"s{number}") for number in range(8)]
        for part in range(4):
            for session in sessions:
                await manager.push(session, lines(f"{part}", 7))
        turns = [say(manager, session, conversation(user("well?"))) for session in sessions[::2]]
        await asyncio.gather(*turns, *(session.resident(28, SECONDS) for session in sessions))
        await resting(manager)


async def test_the_least_recently_used_makes_room_and_comes_back_when_it_is_asked() -> None:
    engine = pool(2)
    async with managing(engine) as manager:
        one, two = await filled(manager, "one", "two")
        assert [one.residency, two.residency] == ["resident", "resident"]
        await ask(manager, one)
        (three,) = await filled(manager, "three")
        assert [one.residency, two.residency, three.residency] == ["resident", "warm", "resident"]
        assert (two.kv_tokens, two.version) == (0, 1)
        assert await ask(manager, two) == await fresh("two", lines("two"))
        await until(lambda: two.residency == "resident")
        await resting(manager)
        assert one.residency == "warm"
        # Its question had read it: only what makes up a block is left to do.
        assert two.held.cached >= two.tokens - 2 * engine.facts.block_size


async def test_a_push_is_taken_and_waits_for_a_stream_that_is_being_read() -> None:
    engine = pool(1, context=512)
    async with managing(engine) as manager:
        one, two = await manager.create("one"), await manager.create("two")
        engine.ingest_gate.clear()
        await manager.push(one, lines("one"))
        await until(lambda: engine.calls)
        assert (await manager.push(two, lines("two"))).pending == LINES
        await until(lambda: manager._holdings[0]._claims)
        engine.ingest_gate.set()
        await settled(two)
        assert (one.version, one.residency, two.residency) == (1, "warm", "resident")


async def test_a_session_that_is_deleted_while_it_waits_leaves_nothing() -> None:
    engine = pool(1, context=512)
    async with managing(engine) as manager:
        one, two = await manager.create("one"), await manager.create("two")
        engine.ingest_gate.clear()
        await manager.push(one, lines("one"))
        await until(lambda: engine.calls)
        await manager.push(two, lines("two"))
        await until(lambda: manager._holdings[0]._claims)
        await manager.delete("two")
        assert not manager._holdings[0]._claims
        engine.ingest_gate.set()
        await settled(one)
        await manager.delete("one")
        assert (manager.budget.granted, engine.holds) == (0, set())


@pytest.mark.parametrize("first", ["cancellation", "room"])
async def test_who_is_cancelled_as_room_becomes_free_leaves_it_to_the_next(first: str) -> None:
    async with asyncio.timeout(SECONDS), managing(pool(1, context=512)) as manager:
        (holding,) = manager._holdings
        reads, leaves, waits = [await manager.create(name) for name in ("reads", "leaves", "waits")]
        may_end = asyncio.Event()

        async def use(session: Session) -> bool:
            async with holding.room(session, lambda: 300) as room:
                await may_end.wait()
                return room

        async with contextlib.AsyncExitStack() as stack:
            assert await stack.enter_async_context(holding.room(reads, lambda: 300))
            leaving, waiting = asyncio.create_task(use(leaves)), asyncio.create_task(use(waits))
            await until(lambda: len(holding._claims) == 2)
            # Nothing runs between the two.
            if first == "cancellation":
                leaving.cancel()
            await stack.aclose()
            leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await until(lambda: list(holding._used) == [waits.held])
        assert not holding._claims
        may_end.set()
        assert await waiting
        assert (at_rest(manager), manager.budget.granted) == (True, 0)


async def test_a_question_that_needs_its_stream_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # The reserve is half of the pool, which is less than a stream.
    engine = FastEngine(context=1024, block_size=16, kv_capacity=800)
    async with managing(engine) as manager:
        one, two = await manager.create("one"), await manager.create("two")
        for session in (one, two):
            await manager.push(session, lines(session.id, 40))
            await settled(session)
        assert one.residency == "warm"
        assert await ask(manager, one) == await fresh("one", lines("one", 40))
        assert (one.residency, two.residency) == ("resident", "warm")
        engine.ingest_gate.clear()
        monkeypatch.setattr(questions, "_RESIDENT_SECONDS", 0.05)
        with pytest.raises(Unavailable) as refused:
            await ask(manager, two)
        assert (refused.value.code, bool(refused.value.retry_after)) == ("not_resident", True)


async def test_streams_are_restored_in_order_as_far_as_nobody_has_to_make_room() -> None:
    engine = pool(2)
    async with managing(engine) as manager:
        one, two, three = await filled(manager, "one", "two", "three")
        assert one.residency == "warm"
        engine.kill()
        assert {session.residency for session in (two, three)} == {"cold"}
        await until(lambda: not manager.budget.granted)
        assert one.residency == "cold"
        engine.revive()
        await until(lambda: manager.restoring)
        await until(lambda: not manager.restoring)
        assert [one.residency, two.residency, three.residency] == ["cold", "resident", "resident"]
        manager.restore([one, two])
        await until(lambda: not manager.restoring)
        assert manager.residency()["sessions_cold"] == 1
        await resting(manager)


PLACES = st.builds(Place, st.uuids(), st.integers(1, 50), st.floats(0, 9), st.booleans())


@given(st.lists(PLACES, max_size=8, unique_by=lambda place: (place.asked, place.last_used)), st.integers(-5, 300))
def test_as_few_leave_as_do_and_the_least_recently_used_first(places: list[Place[object]], missing: int) -> None:
    leave = leaving(places, missing)
    if leave is None:
        assert sum(place.tokens for place in places) < missing
        return
    gone = [place for place in places if place.owner in leave]
    stay = [place for place in places if place.owner not in leave]
    assert all((one.asked, one.last_used) < (other.asked, other.last_used) for one in gone for other in stay)
    freed = sum(place.tokens for place in gone)
    assert freed >= missing
    assert not gone or freed - max(gone, key=lambda place: (place.asked, place.last_used)).tokens < missing


def test_who_leaves() -> None:
    places = [Place("new", 10, 3.0), Place("asked", 10, 1.0, asked=True), Place("old", 10, 2.0)]
    assert leaving(places, 0) == []
    assert leaving(places, 10) == ["old"]
    assert leaving(places, 11) == ["old", "new"]
    assert leaving(places, 30) == ["old", "new", "asked"]
    assert leaving(places, 31) is None
