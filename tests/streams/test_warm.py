"""Warm turns: reading ahead of a conversation that may come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.engine.base import Priority
from streams.errors import ContextLengthExceeded, NotFound, Unavailable
from streams.manager import Manager
from streams.messages import Message
from streams.pacer import SlicePolicy
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.chatting import conversation, say, user, warm
from tests.streams.kit import managing, settled, until

LONG = "x" * 600


@pytest.fixture
async def manager(engine: FastEngine) -> AsyncIterator[Manager]:
    async with managing(engine, slices=SlicePolicy(tokens_first=64, tokens_max=64)) as manager:
        yield manager


@pytest.fixture
async def session(manager: Manager) -> Session:
    session = await manager.create("s")
    await manager.push(session, ["line"] * 20)
    await settled(session)
    return session


def reads(engine: FastEngine) -> list[int]:
    return [call.tokens for call in engine.calls if call.kind == "extend" and call.priority == Priority.WARM]


async def test_a_warm_turn_is_read_and_the_turn_finds_it(
    manager: Manager, engine: FastEngine, session: Session
) -> None:
    before = list(session.timeline.tokens), session.version, session.kv_tokens
    warmed = await warm(manager, session, conversation(user(LONG)))
    assert (warmed.finish_reason, warmed.version) == ("warmed", session.version)
    assert warmed.cached_tokens == before[2]
    assert warmed.computed_tokens == warmed.prompt_tokens - warmed.cached_tokens
    assert (session.timeline.tokens, session.version, session.kv_tokens) == before
    assert max(reads(engine)[1:]) <= 64
    reply = await say(manager, session, conversation(user(LONG)))
    assert reply.cached_tokens >= warmed.prompt_tokens // 16 * 16 - 16
    assert reply.prefix_cached_tokens == 0, "the session held it"


async def test_what_is_held_already_is_covered(manager: Manager, engine: FastEngine, session: Session) -> None:
    await warm(manager, session, conversation(user(LONG)))
    again = await warm(manager, session, conversation(user(LONG)))
    assert (again.finish_reason, again.cached_tokens) == ("covered", again.prompt_tokens)
    reply = await say(manager, session, conversation(user(LONG)))
    await until(lambda: session.kv_tokens == session.data_end)
    done = await warm(manager, session, conversation(user(LONG), reply.message))
    assert done.finish_reason == "covered"


async def test_a_longer_warm_turn_goes_on_where_the_last_one_ended(
    manager: Manager, engine: FastEngine, session: Session
) -> None:
    first = await warm(manager, session, conversation(user(LONG)))
    longer = await warm(manager, session, conversation(user(LONG), Message("tool", "result")))
    assert longer.finish_reason == "warmed"
    assert longer.cached_tokens == first.prompt_tokens


async def test_a_turn_stops_a_warm_turn_within_a_slice(manager: Manager, engine: FastEngine, session: Session) -> None:
    engine.ingest_gate.clear()
    running = asyncio.create_task(warm(manager, session, conversation(user(LONG))))
    await until(lambda: reads(engine))
    turn = asyncio.create_task(say(manager, session, conversation(user(LONG))))
    await until(lambda: any(call.kind == "generate" for call in engine.calls))
    engine.ingest_gate.set()
    assert (await running).finish_reason == "cancelled"
    assert len(reads(engine)) == 1, "no slice began after the turn came"
    assert (await turn).finish_reason == "stop"


async def test_what_a_stopped_warm_turn_has_read_is_kept(
    manager: Manager, engine: FastEngine, session: Session
) -> None:
    running = asyncio.create_task(warm(manager, session, conversation(user(LONG))))
    await until(lambda: len(reads(engine)) > 3)
    reply = await say(manager, session, conversation(user(LONG)))
    stopped = await running
    assert stopped.finish_reason == "cancelled"
    assert reply.cached_tokens > session.kv_tokens - len(LONG)
    assert stopped.computed_tokens > 0


async def test_a_newer_warm_turn_replaces_an_older(manager: Manager, engine: FastEngine, session: Session) -> None:
    engine.ingest_gate.clear()
    older = asyncio.create_task(warm(manager, session, conversation(user(LONG))))
    await until(lambda: reads(engine))
    newer = asyncio.create_task(warm(manager, session, conversation(user(LONG), Message("tool", "result"))))
    await asyncio.sleep(0)
    engine.ingest_gate.set()
    assert (await older).finish_reason == "cancelled"
    assert (await newer).finish_reason == "warmed"


async def test_new_data_retires_what_was_read_ahead(manager: Manager, engine: FastEngine, session: Session) -> None:
    await warm(manager, session, conversation(user(LONG)))
    assert len(engine.holds) == 2
    await manager.push(session, ["more"])
    await settled(session)
    assert session.ahead is None
    assert len(engine.holds) == 1
    assert manager.budget.granted == -(-session.data_end // 16) * 16


async def test_another_history_is_read_ahead_without_touching_the_stream(
    manager: Manager, engine: FastEngine, session: Session
) -> None:
    await say(manager, session, conversation(user("a")))
    before = list(session.timeline.tokens), session.version
    warmed = await warm(manager, session, conversation(user("other"), Message("assistant", "so"), user(LONG)))
    assert warmed.finish_reason == "warmed"
    assert (session.timeline.tokens, session.version) == before


async def test_refusals(manager: Manager, engine: FastEngine, session: Session) -> None:
    with pytest.raises(ContextLengthExceeded):
        await warm(manager, session, conversation(user("x" * 5000)))
    await manager.delete("s")
    with pytest.raises(NotFound):
        await warm(manager, session, conversation(user("x")))


async def test_no_room_for_it_in_the_kv_cache_is_said() -> None:
    engine = FastEngine(context=1024, kv_capacity=2048)
    async with managing(engine) as manager:
        engine.ingest_gate.clear()
        await manager.push(await manager.create("full"), ["x" * 700])
        await until(lambda: manager.budget.granted)
        session = await manager.create("s")
        with pytest.raises(Unavailable) as refused:
            await warm(manager, session, conversation(user("x" * 700)))
        assert refused.value.code == "kv_cache_full"


async def test_what_was_read_ahead_makes_room_for_streams() -> None:
    engine = FastEngine(context=1024, kv_capacity=2048)
    async with managing(engine) as manager:
        session = await manager.create("s")
        await warm(manager, session, conversation(user("x" * 500)))
        other = await manager.create("other")
        await manager.push(other, ["x" * 600])
        await settled(other)
        await until(lambda: len(engine.holds) == 1)
        assert (await warm(manager, session, conversation(user("x" * 500)))).finish_reason == "warmed"
        assert other.residency == "warm"


async def test_a_client_that_leaves_ends_its_warm_turn(manager: Manager, engine: FastEngine, session: Session) -> None:
    engine.ingest_gate.clear()
    running = asyncio.create_task(warm(manager, session, conversation(user(LONG))))
    await until(lambda: reads(engine))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    engine.ingest_gate.set()
    assert (await warm(manager, session, conversation(user(LONG)))).finish_reason == "warmed"


async def test_a_session_with_a_warm_turn_can_be_deleted(
    manager: Manager, engine: FastEngine, session: Session
) -> None:
    await warm(manager, session, conversation(user(LONG)))
    await manager.delete("s")
    assert not engine.holds
    assert manager.budget.granted == 0
