"""An engine that outlives the ones behind it: what the rest of the server knows, whichever engine lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from streams.engine.base import Dialect, Engine, Held, ModelFacts, Piece, Priority, Sampling, Tokenizer
from streams.errors import EngineUnavailable


class SurvivingEngine:
    """An :class:`~streams.engine.base.Engine` over the one that lives now.

    What is known of the model is known of the first and stays: a successor has to be like it. A hold belongs to the
    engine that made it, and is lost with it.
    """

    def __init__(self, first: Engine) -> None:
        self._facts = first.facts
        self._tokenizer = first.tokenizer
        self._dialect = first.dialect
        self._engine = first
        self._replaced = asyncio.Event()

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def dialect(self) -> Dialect:
        return self._dialect

    @property
    def dead(self) -> bool:
        return self._engine.dead

    async def ready(self) -> None:
        while self._engine.dead:
            await self._replaced.wait()

    async def lost(self) -> None:
        await self._engine.lost()

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> Held:
        return self._engine.hold(priority, rank)

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        if self._engine.dead:
            raise EngineUnavailable.restarting()
        return self._engine.generate(tokens, sampling, priority, rank)

    async def close(self) -> None:
        await self._engine.close()

    def replaces(self, engine: Engine) -> bool:
        """Whether ``engine`` can take the place of the one before: what was granted to streams must fit it."""
        facts, mine = engine.facts, self._facts
        alike = (facts.context, facts.footprint, facts.ranks) == (mine.context, mine.footprint, mine.ranks)
        return alike and facts.kv_capacity >= mine.kv_capacity

    def replace(self, engine: Engine) -> None:
        """``engine`` lives now."""
        self._engine = engine
        self._replaced.set()
        self._replaced = asyncio.Event()
