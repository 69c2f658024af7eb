"""What streams refuse, and that a refusal leaves no trace."""

from __future__ import annotations

import asyncio

import pytest

from streams.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from streams.manager import Manager
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.kit import held_by_sessions, managing, settled, until


def state(manager: Manager, session: Session) -> tuple[object, ...]:
    queue = session.queue
    counters = queue.total_pushed, queue.total_dropped, queue.size, queue.tokens, len(queue)
    return counters, list(session.timeline.tokens), session.version, session.settled, manager.budget.granted


async def test_data_beyond_the_context_are_refused_and_leave_no_trace() -> None:
    async with managing(FastEngine(context=512)) as manager:
        session = await manager.create("s")
        await manager.push(session, ["x" * 100])
        await settled(session)
        before = state(manager, session)
        with pytest.raises(ContextLengthExceeded):
            await manager.push(session, ["fits", "y" * 400])
        assert state(manager, session) == before
        await manager.push(session, ["fits"])
        await settled(session)
        assert session.version == 2


async def test_data_that_the_kv_cache_cannot_hold_even_alone_are_refused_and_leave_no_trace() -> None:
    async with managing(FastEngine(kv_capacity=1024)) as manager:
        session = await manager.create("s")
        before = state(manager, session)
        with pytest.raises(ContextLengthExceeded, match="KV cache"):
            await manager.push(session, ["y" * 600])
        assert state(manager, session) == before
        await manager.push(session, ["y" * 300])
        await settled(session)


@pytest.mark.parametrize(
    ("engine", "system", "error"),
    [
        (FastEngine(context=512), "x" * 500, ContextLengthExceeded),
        (FastEngine(kv_capacity=256), "x" * 200, ContextLengthExceeded),
        (FastEngine(), "half of a pair: \ud800", InvalidInput),
    ],
)
async def test_a_system_prompt_that_does_not_fit_leaves_no_trace(
    engine: FastEngine, system: str, error: type[Exception]
) -> None:
    before = asyncio.all_tasks()
    async with managing(engine) as manager:
        tasks = asyncio.all_tasks()
        with pytest.raises(error):
            await manager.create("s", system=system)
        assert (manager.sessions(), manager.budget.granted, asyncio.all_tasks()) == ([], 0, tasks)
        await manager.create("s")
    assert asyncio.all_tasks() == before


async def test_an_entry_beyond_its_bound_is_refused_with_all_of_its_push(engine: FastEngine) -> None:
    async with managing(engine, entry_bytes=10, queue_bytes=20) as manager:
        session = await manager.create("s")
        before = state(manager, session)
        with pytest.raises(InvalidInput) as refused:
            await manager.push(session, ["fine", "é" * 6])
        assert refused.value.param == "data.1"
        assert state(manager, session) == before


async def test_a_stream_that_cannot_be_read_says_so_and_others_go_on(manager: Manager, engine: FastEngine) -> None:
    lost, other = await manager.create("lost"), await manager.create("other")
    engine.reading_error = ValueError("a bug")
    await manager.push(lost, ["a"])
    with pytest.raises(Unavailable) as told:
        await settled(lost)
    assert told.value.code == "session_ended"
    with pytest.raises(EngineUnavailable) as refused:
        await manager.push(lost, ["b"])
    assert refused.value.code == "session_failed"
    assert lost.failure is not None
    engine.reading_error = None
    await manager.push(other, ["a"])
    await settled(other)
    await manager.delete("lost")
    assert manager.budget.granted == held_by_sessions(manager)


async def test_leaving_ends_every_task_and_releases_every_hold(engine: FastEngine) -> None:
    before = asyncio.all_tasks()
    async with managing(engine) as manager:
        resting, reading = await manager.create("resting"), await manager.create("reading")
        await manager.create("empty", system="Be brief.")
        await manager.push(resting, ["a"])
        await settled(resting)
        engine.ingest_gate.clear()
        await manager.push(reading, ["b"])
        await until(lambda: reading.tokens)
    assert asyncio.all_tasks() == before
    assert engine.holds == set()
