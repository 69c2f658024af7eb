"""Admission: who may hold how much of the KV cache. Pure, no I/O.

An engine that is asked to hold more than its pool has blocks everything, so nothing is sent to it that was not
granted here first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from streams.errors import Unavailable
from streams.footprint import Footprint

Owner = TypeVar("Owner", bound=Hashable)


class Budget(Generic[Owner]):
    """Tokens of KV cache, granted in whole blocks.

    Args:
        capacity: the engine's pool, in blocks of tokens.
        reserve: tokens kept free of streams, so that at least one question of any length can always run.
        footprint: what a sequence takes of the pool.

    Attributes:
        limit: what owners may take of the pool together.
        longest: tokens of the longest sequence that an owner could hold alone.
        granted: what they take of it now.
    """

    def __init__(self, capacity: int, reserve: int, footprint: Footprint) -> None:
        self.capacity = capacity
        self._footprint = footprint
        free = capacity - footprint.blocks(reserve) * footprint.block_size
        self.limit = max(0, free) // footprint.block_size * footprint.block_size
        self.longest = footprint.tokens(self.limit // footprint.block_size)
        self._granted: dict[Owner, int] = {}
        self.granted = 0

    def of(self, owner: Owner) -> int:
        """What ``owner`` may hold, in tokens."""
        return self._granted.get(owner, 0)

    def owners(self) -> list[Owner]:
        """All who may hold something."""
        return list(self._granted)

    def share(self, tokens: int) -> int:
        """What a sequence of so many tokens takes of the pool, as :attr:`granted` counts it."""
        return self._footprint.blocks(tokens) * self._footprint.block_size

    def missing(self, owner: Owner, tokens: int) -> int:
        """How much of the pool others would have to give back for ``owner`` to hold so many; 0 or less for none."""
        held = self.of(owner)
        return 0 if tokens <= held else self.granted - self.share(held) + self.share(tokens) - self.limit

    def grant(self, owner: Owner, tokens: int) -> None:
        """Set what ``owner`` may hold, in tokens.

        Raises:
            Unavailable: the pool has no room; the owner keeps what it had.
        """
        if self.missing(owner, tokens) > 0:
            raise full()
        self.release(owner)
        if tokens > 0:
            self.granted += self.share(tokens)
            self._granted[owner] = -(-tokens // self._footprint.block_size) * self._footprint.block_size

    def release(self, owner: Owner) -> None:
        """Take everything back from ``owner``. Idempotent."""
        self.granted -= self.share(self._granted.pop(owner, 0))


def full() -> Unavailable:
    """The refusal where others use all of the KV cache now."""
    return Unavailable(
        "other streams use all of the KV cache now; try again, delete a session, or start the server with a larger "
        "--kv-cache-gb",
        code="kv_cache_full",
        retry_after=5,
    )
