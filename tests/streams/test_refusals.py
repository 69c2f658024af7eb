"""What streams refuse, and that a refusal leaves no trace; a dead engine refuses everything."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import Sampling
from streams.errors import (
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from streams.manager import Manager
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS, held_by_sessions, managing, settled, until


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


async def test_data_beyond_the_kv_cache_are_refused_and_leave_no_trace() -> None:
    async with managing(FastEngine(kv_capacity=1024)) as manager:
        one, other = await manager.create("one"), await manager.create("other")
        await manager.push(one, ["x" * 300])
        await settled(one)
        before = state(manager, other)
        with pytest.raises(Unavailable) as refused:
            await manager.push(other, ["y" * 300])
        assert refused.value.code == "kv_cache_full"
        assert state(manager, other) == before
        await manager.delete("one")
        await manager.push(other, ["y" * 300])
        await settled(other)


@pytest.mark.parametrize(
    ("engine", "system", "error"),
    [
        (FastEngine(context=512), "x" * 500, ContextLengthExceeded),
        (FastEngine(kv_capacity=256), "x" * 200, Unavailable),
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


async def test_a_dead_engine_is_said_everywhere_and_nothing_hangs(engine: FastEngine) -> None:
    before = asyncio.all_tasks()
    async with managing(engine) as manager:
        session, idle = await manager.create("s"), await manager.create("idle")
        await manager.push(session, ["a"])
        await settled(session)
        engine.ingest_gate.clear()
        engine.generate_gate.clear()
        ack = await manager.push(session, ["b"])
        prompt = manager.questions.prompt(session, manager.questions.encode("trend?"))
        asking = asyncio.create_task(anext(manager.questions.reply(prompt, Sampling(max_tokens=4)).deltas()))
        waiting = asyncio.create_task(session.resident(ack.total_pushed, SECONDS))
        await until(lambda: engine.running and session.data_end > session.settled)
        engine.kill()
        with pytest.raises(EngineUnavailable):
            await asking
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(EngineUnavailable):
            await manager.create("new")
        for one in (session, idle):
            with pytest.raises(EngineUnavailable):
                await manager.push(one, ["c"])
            with pytest.raises(EngineUnavailable), manager.questions.foreground(one):
                pass
        assert manager.questions.waiting == 0
        assert {one.id for one in manager.sessions()} == {"idle", "s"}
        await manager.delete("s")
    assert asyncio.all_tasks() == before


async def test_a_stream_that_the_engine_lost_says_so_and_others_go_on(manager: Manager) -> None:
    lost, other = await manager.create("lost"), await manager.create("other")
    await lost.held.release()
    await manager.push(lost, ["a"])
    with pytest.raises(Unavailable):
        await settled(lost)
    with pytest.raises(EngineUnavailable) as refused:
        await manager.push(lost, ["b"])
    assert refused.value.code == "session_failed"
    assert lost.failure is not None
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
