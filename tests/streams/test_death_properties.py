"""An engine that dies at any moment among pushes, turns, questions and moves: nothing is lost, twice, or stuck."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from streams import chat
from streams.engine.base import Sampling
from streams.errors import Conflict, EngineUnavailable, Unavailable
from streams.manager import Manager
from streams.pacer import SlicePolicy
from streams.window import Window
from tests.engine.fast import FastEngine
from tests.streams.chatting import conversation, say, user
from tests.streams.kit import EngineMachine, at_rest, held_by_sessions, held_tokens, managing, settled, until

NAMES = st.sampled_from(["plain", "sliding"])


class DeathMachine(EngineMachine):
    """Two streams, one with a window. What was begun and not awaited is in ``begun``."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = FastEngine(context=4096, block_size=16, kv_capacity=16384)
        self.stack = contextlib.AsyncExitStack()
        policy = SlicePolicy(tokens_min=8, tokens_first=32, tokens_max=32)
        self.manager: Manager = self.runner.run(self.stack.enter_async_context(managing(self.engine, slices=policy)))
        self.stack.enter_context(pytest.MonkeyPatch.context()).setattr(chat, "_QUIET_SECONDS", 0.0)
        self.runner.run(self.create())
        self.pushed: dict[str, int] = {"plain": 0, "sliding": 0}
        self.versions: dict[str, int] = {"plain": 0, "sliding": 0}
        self.begun: list[asyncio.Task[Any]] = []

    async def create(self) -> None:
        await self.manager.create("plain", "Be brief.")
        await self.manager.create("sliding", window=Window(400))

    def teardown(self) -> None:
        self.come_to_rest()
        for name in self.pushed:
            self.runner.run(self.manager.delete(name))
        assert (self.manager.budget.granted, self.engine.holds) == (0, set())
        self.runner.run(self.stack.aclose())
        self.runner.close()

    @rule(name=NAMES, sizes=st.lists(st.integers(8, 100), min_size=1, max_size=3))
    def push(self, name: str, sizes: list[int]) -> None:
        if self.manager.get(name).data_end > 3000:
            return
        texts = []
        for size in sizes:
            self.pushed[name] += 1
            texts.append(f"{self.pushed[name]:06d}".ljust(size, "."))
        self.runner.run(self.manager.push(self.manager.get(name), texts))

    @rule()
    def kill(self) -> None:
        self.engine.kill()

    @rule()
    def replace(self) -> None:
        if self.engine.dead:
            self.engine.revive()

    @rule(name=NAMES)
    def talk(self, name: str) -> None:
        async def talk() -> None:
            with contextlib.suppress(EngineUnavailable, Conflict):
                await say(self.manager, self.manager.get(name), conversation(user("well?")))

        self.begin(talk)

    @rule(name=NAMES)
    def warm(self, name: str) -> None:
        async def warm() -> None:
            with contextlib.suppress(EngineUnavailable, Conflict):
                await self.manager.chat.warm(self.manager.get(name), conversation(user("well? " * 20)))

        self.begin(warm)

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        async def ask() -> None:
            session, questions = self.manager.get(name), self.manager.questions
            with contextlib.suppress(EngineUnavailable), questions.foreground(session):
                prompt = await questions.prompt(session, questions.encode("trend?"))
                reply = questions.reply(prompt, Sampling(max_tokens=4))
                async for _ in reply.deltas():
                    pass

        self.begin(ask)

    def begin(self, work: Any) -> None:
        async def begin() -> None:
            self.begun.append(asyncio.create_task(work()))
            await asyncio.sleep(0)

        self.runner.run(begin())

    @rule()
    def come_to_rest(self) -> None:
        async def rest() -> None:
            await asyncio.gather(*self.begun)
            self.begun.clear()
            for session in self.manager.sessions():
                await settled(session)
                await until(
                    lambda session=session: (  # type: ignore[misc]
                        at_rest(self.manager)
                        and session.held.covers(session.timeline.tokens)
                        and not self.manager.moving(session)
                    )
                )

            # A turn has its stream read once more when it is quiet, and gives back what was read ahead then.
            await until(lambda: at_rest(self.manager) and self.nothing_is_kept_back())

        self.replace()
        self.engine.ingest_gate.set()
        self.runner.run(rest())
        for session in self.manager.sessions():
            text = self.engine.tokenizer.decode(session.timeline.tokens)
            entries = [int(number) for number in re.findall(r"\d{6}", text)]
            assert entries == list(range(session.evicted + 1, self.pushed[session.id] + 1))
            assert held_tokens(session) == session.timeline.tokens
            assert (session.pending, session.running, session.turning) == (0, 0, False)
        assert self.manager.questions.running == self.manager.questions.waiting == 0
        assert self.engine.running == 0

    def nothing_is_kept_back(self) -> bool:
        """The budget has granted what streams hold, and what was read ahead of them."""
        warmed = any(session.ahead is not None for session in self.manager.sessions())
        return warmed or self.manager.budget.granted == held_by_sessions(self.manager)

    @invariant()
    def versions_never_go_down_and_nothing_fails(self) -> None:
        for session in self.manager.sessions():
            assert session.failure is None
            assert session.version >= self.versions[session.id]
            self.versions[session.id] = session.version
            assert session.settled <= session.data_end
            assert session.kv_tokens <= (0 if self.engine.dead else session.data_end)


DeathMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=30)
TestDeath = DeathMachine.TestCase


async def test_a_stream_that_nobody_pushes_to_is_read_again(engine: FastEngine) -> None:
    async with managing(engine) as manager:
        session = await manager.create("s", "Be brief.")
        await manager.push(session, ["a"])
        await settled(session)
        engine.kill()
        assert (session.kv_tokens, session.version) == (0, 1)
        await until(lambda: not engine.holds)
        engine.revive()
        await until(lambda: session.held.covers(session.timeline.tokens))
        assert session.version == 1


async def test_an_engine_that_fails_once_and_lives_is_asked_again(
    engine: FastEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streams.reading._PAUSE_SECONDS", 0.0)
    async with managing(engine) as manager:
        session = await manager.create("s")
        engine.reading_error = EngineUnavailable("failed on this request")
        await manager.push(session, ["a", "b"])
        await until(lambda: len(engine.calls) > 3)
        assert (session.version, session.pending) == (0, 2)
        engine.reading_error = None
        await settled(session)
        assert (session.version, session.covered, session.entries) == (1, 2, 2)


async def test_whoever_waits_for_what_it_pushed_outlives_the_engine(engine: FastEngine) -> None:
    async with managing(engine) as manager:
        session = await manager.create("s")
        engine.ingest_gate.clear()
        await manager.push(session, ["a"])
        waiting = asyncio.create_task(session.resident(1, 20))
        await until(lambda: engine.calls)
        engine.kill()
        with pytest.raises(Unavailable), manager.questions.foreground(session):
            pass
        await manager.push(session, ["b"])
        engine.revive()
        await waiting
        await settled(session)
        assert session.pending == 0
