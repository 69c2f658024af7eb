"""Any order of creating, pushing, reading and deleting: the budget is what sessions hold, and markers are true."""

from __future__ import annotations

import asyncio
import contextlib

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from streams.engine.base import Sampling
from streams.errors import Conflict, ContextLengthExceeded, NotFound, Unavailable
from streams.manager import Limits, Manager
from tests.engine.fast import FastEngine
from tests.streams.kit import EngineMachine, InstantLog, at_rest, held_by_sessions, held_tokens, settled, text_of

NAMES = st.sampled_from("abcd")


class ManagerMachine(EngineMachine):
    """A small pool, so that refusals happen. The engine itself checks that no more is held than it has."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.engine = FastEngine(context=512, block_size=16, kv_capacity=1024)
        limits = Limits(sessions=3, queue_entries=3, queue_bytes=200, entry_bytes=150)
        self.manager = Manager(self.engine, limits, InstantLog())
        self.runner.run(self.manager.__aenter__())
        self.pushed: dict[str, int] = {}
        self.serial = 0

    def teardown(self) -> None:
        self.engine.ingest_gate.set()
        self.runner.run(self.delete_all())
        assert (self.manager.budget.granted, self.engine.holds) == (0, set())
        self.runner.run(self.manager.__aexit__())
        self.runner.close()

    async def delete_all(self) -> None:
        for session in self.manager.sessions():
            await self.manager.delete(session.id)

    @rule(name=NAMES, system=st.none() | st.integers(1, 400).map("s".__mul__))
    def create(self, name: str, system: str | None) -> None:
        async def create() -> None:
            await self.manager.create(name, system)

        with contextlib.suppress(Conflict, ContextLengthExceeded, Unavailable):
            self.runner.run(create())
            self.pushed[name] = 0

    @rule(name=NAMES, sizes=st.lists(st.integers(8, 150), min_size=1, max_size=5))
    def push(self, name: str, sizes: list[int]) -> None:
        texts = []
        for size in sizes:
            self.serial += 1
            texts.append(f"{self.serial:06d}".ljust(size, "."))
        with contextlib.suppress(NotFound, ContextLengthExceeded, Unavailable):
            ack = self.runner.run(self.manager.push(self.manager.get(name), texts))
            self.pushed[name] += len(texts)
            assert ack.total_pushed == self.pushed[name]

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        with contextlib.suppress(NotFound):
            self.runner.run(self.manager.delete(name))

    @rule(name=NAMES)
    def ask(self, name: str) -> None:
        """Over what is resident or not; it is again afterwards, if nobody else needs the room."""

        async def ask() -> None:
            session, questions = self.manager.get(name), self.manager.questions
            prompt = await questions.prompt(session, questions.encode("?"))
            with questions.foreground(session):
                async for _ in questions.reply(prompt, Sampling(max_tokens=2)).deltas():
                    pass

        self.engine.ingest_gate.set()
        with contextlib.suppress(NotFound):
            self.runner.run(ask())

    @rule()
    def read_everything(self) -> None:
        async def read() -> None:
            for session in self.manager.sessions():
                await settled(session)
                assert session.pending == session.backlog.size == 0
                entries = text_of(self.engine, session).split()
                assert entries == sorted(entries)
                assert len(entries) == session.queue.total_pushed - session.queue.total_dropped

        self.engine.ingest_gate.set()
        self.runner.run(read())

    @invariant()
    def the_budget_is_what_sessions_hold(self) -> None:
        budget = self.manager.budget
        assert held_by_sessions(self.manager) <= budget.granted <= budget.limit
        assert budget.granted == held_by_sessions(self.manager) or not at_rest(self.manager)

    @invariant()
    def markers_are_true(self) -> None:
        for session in self.manager.sessions():
            assert session.failure is None
            assert session.settled <= session.data_end == len(session.timeline.tokens)
            assert session.kv_tokens <= session.data_end <= session.committed <= self.manager.budget.limit
            assert held_tokens(session) == session.timeline.tokens[: session.kv_tokens]
            assert session.settled <= session.kv_tokens or session.version == 0 or session.residency != "resident"
            assert session.queue.total_pushed == self.pushed[session.id]
            assert session.covered + session.pending <= session.queue.total_pushed
            assert (session.covered == session.queue.total_pushed) == (session.pending == 0)


ManagerMachine.TestCase.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
TestManager = ManagerMachine.TestCase
