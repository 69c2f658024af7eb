"""Markers, and waiting for one's own writes."""

from __future__ import annotations

import asyncio

import pytest

from streams.errors import (
    InvalidInput,
    Unavailable,
)
from streams.manager import Manager
from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS, held_by_sessions, managing, settled, text_of, until


async def test_markers_are_true_while_a_batch_is_being_read(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    await manager.push(session, ["first"])
    await settled(session)
    before = session.data_end

    engine.ingest_gate.clear()
    await manager.push(session, ["second"])
    await until(lambda: session.data_end > before)
    ack = await manager.push(session, ["third", "fourth"])
    assert (ack.pending, ack.pending_bytes, ack.data_version) == (3, len("secondthirdfourth"), 1)
    assert session.data_end == before + len("second\n")
    assert (session.kv_tokens, session.version, session.covered) == (before, 1, 1)
    assert text_of(engine, session) == "first\n"
    assert manager.budget.granted == held_by_sessions(manager)

    engine.ingest_gate.set()
    await settled(session)
    assert (session.pending, session.version, session.covered) == (0, 3, 4)
    assert session.kv_tokens == session.data_end
    assert text_of(engine, session) == "first\nsecond\nthird\nfourth\n"


async def test_after_waits_for_that_entry_and_no_further(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    engine.ingest_gate.clear()
    first = await manager.push(session, ["a", "b"])
    waiting = asyncio.create_task(session.resident(first.total_pushed, SECONDS))
    partly = asyncio.create_task(session.resident(1, SECONDS))
    await until(lambda: session.tokens)
    await manager.push(session, ["c"])
    assert not waiting.done()
    engine.ingest_gate.set()
    await asyncio.gather(waiting, partly)
    assert session.covered >= first.total_pushed
    await session.resident(0, 0)


async def test_after_counts_dropped_entries_as_passed(engine: FastEngine) -> None:
    async with managing(engine, queue_entries=1) as manager:
        session = await manager.create("s")
        await manager.push(session, ["a", "b", "c"])
        await session.resident(2, SECONDS)
        assert session.covered == 3


async def test_after_gives_up_in_time(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    engine.ingest_gate.clear()
    await manager.push(session, ["a"])
    with pytest.raises(Unavailable) as refused:
        await session.resident(1, 0.01)
    assert refused.value.code == "not_resident_in_time"
    assert refused.value.retry_after is not None


async def test_after_more_than_was_pushed_is_refused(manager: Manager) -> None:
    session = await manager.create("s")
    await manager.push(session, ["a"])
    with pytest.raises(InvalidInput) as refused:
        await session.resident(2, SECONDS)
    assert refused.value.param == "after"


async def test_after_ends_with_the_session(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    engine.ingest_gate.clear()
    await manager.push(session, ["a"])
    waiting = asyncio.create_task(session.resident(1, SECONDS))
    await asyncio.sleep(0)
    await manager.delete("s")
    with pytest.raises(Unavailable) as refused:
        await waiting
    assert refused.value.code == "session_ended"
