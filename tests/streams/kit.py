"""What tests of streams share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from streams.log import Options
from streams.manager import Limits, Manager
from streams.records import Record
from streams.session import Session
from tests.engine.fast import FastEngine, FastHeld

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.creations: list[str] = []
        self.settlements: list[tuple[str, int, int]] = []
        self.turns: list[tuple[str, int]] = []
        self.moves: list[tuple[str, int, int]] = []
        self.adoptions: list[str] = []
        self.deletions: list[str] = []
        self.losses: list[str] = []
        self.may_delete = asyncio.Event()
        self.may_delete.set()

    def created(self, session: Session) -> None:
        self.creations.append(session.id)

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        assert seconds >= 0
        self.settlements.append((session.id, session.version, tokens))

    def turned(self, session: Session) -> None:
        self.turns.append((session.id, session.version))

    def moved(self, session: Session, tokens: int) -> None:
        self.moves.append((session.id, session.version, tokens))

    def froze(self, session: Session) -> None:
        self.moves.append((session.id, session.version, 0))

    async def adopted(self, session: Session) -> None:
        self.adoptions.append(session.id)

    async def deleted(self, session: Session) -> None:
        await self.may_delete.wait()
        self.deletions.append(session.id)

    async def lost(self, session: Session) -> None:
        self.losses.append(session.id)


class InstantLog:
    """A log that has written everything at once and forgets it; the real one is tested with a real Redis."""

    async def begin(self, session_id: str, options: Options) -> None:
        pass

    def hand_in(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> Callable[[], Awaitable[None]]:
        apply()
        return self._written

    async def _written(self) -> None:
        pass

    async def write(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> None:
        apply()

    @asynccontextmanager
    async def changing(self, session: Session, timeout: float | None = None) -> AsyncIterator[None]:
        async with session.reading:
            yield

    async def end(self, session: Session) -> None:
        pass


class EngineMachine(RuleBasedStateMachine):
    """What happens to an engine beside everything else: it is held up, and time passes."""

    runner: asyncio.Runner
    engine: FastEngine

    @rule()
    def hold_the_engine_up(self) -> None:
        self.engine.ingest_gate.clear()

    @rule(turns=st.integers(1, 30))
    def let_tasks_run(self, turns: int) -> None:
        async def run() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)

        self.runner.run(run())


@asynccontextmanager
async def managing(engine: FastEngine, **limits: Any) -> AsyncIterator[Manager]:
    async with Manager(engine, Limits(**limits), InstantLog()) as manager:
        yield manager


async def until(condition: Callable[[], object]) -> None:
    """Let tasks run until something is so."""
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0)


async def settled(session: Session) -> None:
    await session.resident(session.queue.total_pushed, SECONDS)


def text_of(engine: FastEngine, session: Session) -> str:
    """The data that questions see."""
    return engine.tokenizer.decode(session.snapshot().tokens[len(session.frame.head) :])


def at_rest(manager: Manager) -> bool:
    """Whether nothing is being read, asked or given back."""
    return not any(holding._used or holding._releases for holding in manager._holdings)


def held_by_sessions(manager: Manager) -> int:
    block = manager.engine.facts.block_size
    return sum(-(-len(session.held.content) // block) * block for session in manager.sessions())


def held_tokens(session: Session) -> list[int]:
    """The tokens whose KV the engine holds."""
    held = session.held._hold
    if held is None or held.lost:
        assert session.held.content == []
        return []
    assert isinstance(held, FastHeld)
    assert held.content == session.held.content
    return held.content
