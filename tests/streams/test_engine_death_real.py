"""The real engine's process is killed in the middle of a load, and another takes its place."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator

import pytest

from streams.engine.base import Sampling
from streams.engine.supervisor import Supervisor
from streams.engine.vllm import EngineOptions, VllmEngine
from streams.errors import EngineUnavailable
from streams.manager import Limits, Manager
from streams.session import Session
from tests.streams.kit import InstantLog

NAMES = ("one", "two")


class Mortal:
    """A supervised engine, and the process it runs in."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._others = set(multiprocessing.active_children())
        self.supervisor = Supervisor(self._load)
        self.supervisor.start()

    def _load(self) -> VllmEngine:
        engine = VllmEngine.load(self._options)
        self._options = engine.again
        return engine

    def processes(self) -> list[int]:
        children = set(multiprocessing.active_children()) - self._others
        return [child.pid for child in children if child.pid is not None]

    def kill(self) -> int:
        (pid,) = self.processes()
        os.kill(pid, signal.SIGKILL)
        return pid


@pytest.fixture
async def mortal(engine_options: EngineOptions) -> AsyncIterator[Mortal]:
    mortal = Mortal(engine_options)
    yield mortal
    await mortal.supervisor.close()
    assert mortal.processes() == []


async def ask(manager: Manager, session: Session) -> str:
    questions = manager.questions
    prompt = await questions.prompt(session, questions.encode("Which number came last?"))
    with questions.foreground(session):
        reply = questions.reply(prompt, Sampling(max_tokens=8))
        async for _ in reply.deltas():
            pass
    return reply.message.content


@pytest.mark.timeout(600)
async def test_a_killed_engine_is_replaced_and_no_entry_is_lost(mortal: Mortal) -> None:
    engine = await mortal.supervisor.wait_ready()
    facts = engine.facts
    async with Manager(engine, Limits(), InstantLog()) as manager:
        sessions = [await manager.create(name) for name in NAMES]
        pushed = 0

        async def push(count: int) -> None:
            nonlocal pushed
            for _ in range(count):
                pushed += 1
                for session in sessions:
                    await manager.push(session, [f"reading {pushed:06d}"])
                await asyncio.sleep(0.01)

        await push(50)
        for session in sessions:
            await session.resident(10, 60)
        versions = [session.version for session in sessions]
        storm = asyncio.create_task(push(200))
        asking = asyncio.create_task(ask(manager, sessions[0]))
        await asyncio.sleep(0.3)
        dead, killed = mortal.kill(), time.monotonic()
        await asyncio.gather(asking, return_exceptions=True)
        async with asyncio.timeout(5):
            await engine.lost()
        assert engine.dead
        with pytest.raises(EngineUnavailable) as refused:
            await ask(manager, sessions[0])
        assert refused.value.retry_after
        await storm
        assert [session.failure for session in sessions] == [None, None]
        async with asyncio.timeout(300):
            await engine.ready()
        print(f"\nengine back after {time.monotonic() - killed:.1f} s")
        for session in sessions:
            await session.resident(pushed, 120)
        print(f"all resident after {time.monotonic() - killed:.1f} s")
        assert mortal.supervisor.state == "ready"
        assert engine.facts == facts
        assert len(mortal.processes()) == 1
        assert dead not in mortal.processes()
        for session, before in zip(sessions, versions, strict=True):
            assert session.version >= before
            said = b"".join(map(engine.tokenizer.token_bytes, session.snapshot().tokens))
            lines = [line for line in said.decode().splitlines() if line.startswith("reading ")]
            assert lines == [f"reading {number:06d}" for number in range(1, pushed + 1)]
            assert session.held.covers(session.timeline.tokens)
        # The same as of a stream that never saw an engine die.
        fresh = await manager.create("fresh")
        await manager.push(fresh, [f"reading {number:06d}" for number in range(1, pushed + 1)])
        await fresh.resident(pushed, 120)
        assert await ask(manager, sessions[0]) == await ask(manager, fresh)
