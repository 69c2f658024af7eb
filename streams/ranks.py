"""What the engine's ranks hold, and which of them holds a stream. Pure, no I/O.

A stream stays where it was placed, for its KV is there and nowhere else.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from streams.budget import Budget
from streams.engine.base import ModelFacts

Owner = TypeVar("Owner", bound=Hashable)


class RankBudgets(Generic[Owner]):
    """A :class:`~streams.budget.Budget` for each rank.

    Args:
        facts: of the engine.
        reserve: tokens kept free of streams, on each rank.
    """

    def __init__(self, facts: ModelFacts, reserve: int) -> None:
        self._block_size = facts.block_size
        self.ranks: tuple[Budget[Owner], ...] = tuple(
            Budget(facts.kv_capacity, reserve, facts.footprint) for _ in range(facts.ranks)
        )

    @property
    def capacity(self) -> int:
        """Tokens that the engine's pools hold together."""
        return sum(budget.capacity for budget in self.ranks)

    @property
    def limit(self) -> int:
        """What streams may take of the pools, over all ranks."""
        return sum(budget.limit for budget in self.ranks)

    @property
    def granted(self) -> int:
        """What streams take of the pools, over all ranks."""
        return sum(budget.granted for budget in self.ranks)

    def place(self, streams: Iterable[tuple[int, int]]) -> int:
        """The rank for a new stream: the one with most room, once all streams that there are hold what they need.

        A stream will grow, so each counts for a block more than it has: those that are still empty spread as well.

        Args:
            streams: the rank of each that there is, and the tokens it needs, resident or not.
        """
        if len(self.ranks) == 1:
            return 0
        free = [budget.limit for budget in self.ranks]
        for rank, tokens in streams:
            free[rank] -= self.ranks[rank].share(tokens + self._block_size)
        return free.index(max(free))
