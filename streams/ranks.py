"""Placement: which of the engine's ranks a stream is held on. Pure, no I/O.

A stream stays where it was placed, for its KV is there and nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Protocol

from streams.budget import Budget
from streams.engine.base import ModelFacts


class Owner(Hashable, Protocol):
    """Who holds tokens on a rank."""

    @property
    def rank(self) -> int: ...


class RankBudgets:
    """A :class:`~streams.budget.Budget` for each rank.

    Args:
        facts: of the engine.
        reserve: tokens kept free of streams, on each rank.
    """

    def __init__(self, facts: ModelFacts, reserve: int) -> None:
        self._block_size = facts.block_size
        self.ranks = tuple(Budget(facts.kv_capacity, reserve, facts.block_size) for _ in range(facts.ranks))

    @property
    def capacity(self) -> int:
        """Tokens that the engine's pools hold together."""
        return sum(budget.capacity for budget in self.ranks)

    @property
    def limit(self) -> int:
        """Tokens that streams may hold, over all ranks."""
        return sum(budget.limit for budget in self.ranks)

    @property
    def granted(self) -> int:
        """Tokens that streams hold, over all ranks."""
        return sum(budget.granted for budget in self.ranks)

    def place(self, streams: Iterable[int]) -> int:
        """The rank for a new stream: the one with most free budget.

        A stream will grow, so each counts for a block more than it has: those that are still empty spread as well.

        Args:
            streams: the rank of each that there is.
        """
        count = Counter(streams)
        free = [budget.limit - budget.granted - count[i] * self._block_size for i, budget in enumerate(self.ranks)]
        return free.index(max(free))

    def grant(self, owner: Owner, tokens: int) -> None:
        """Set what ``owner`` may hold, in tokens.

        Raises:
            Unavailable: its rank has no room; the owner keeps what it had.
        """
        self.ranks[owner.rank].grant(owner, tokens)

    def release(self, owner: Owner) -> None:
        """Take everything back from ``owner``. Idempotent."""
        self.ranks[owner.rank].release(owner)
