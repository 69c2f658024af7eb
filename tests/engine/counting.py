"""The real engine, lent to one test, and what it was asked to do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from streams.engine import choose
from streams.engine.base import Held, Piece, Priority, Sampling


class CountingEngine:
    """Hands everything through. Closing it leaves the engine as it is.

    Attributes:
        prefilled: tokens of streams that had to be computed: what the prefix cache had does not count.
        requests: generations begun.
    """

    def __init__(self, engine: choose.LoadedEngine) -> None:
        self._engine = engine
        self.prefilled = 0
        self.requests = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> CountingHeld:
        return CountingHeld(self, self._engine.hold(priority, rank))

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        self.requests += 1
        async with aclosing(self._engine.generate(tokens, sampling, priority, rank)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """The next test needs it."""


class CountingHeld:
    """A hold of it."""

    def __init__(self, counting: CountingEngine, held: Held) -> None:
        self._counting = counting
        self._held = held

    def __getattr__(self, name: str) -> Any:
        return getattr(self._held, name)

    async def extend(self, tokens: Sequence[int]) -> None:
        first = self._held.tokens == 0
        await self._held.extend(tokens)
        self._counting.prefilled += len(tokens) - (self._held.cached if first else 0)
