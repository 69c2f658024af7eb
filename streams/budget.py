"""Admission: who may hold how much of the KV cache. Pure, no I/O.

An engine that is asked to hold more than its pool has blocks everything, so nothing is sent to it that was not
granted here first.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from streams.errors import Unavailable

Owner = TypeVar("Owner", bound=Hashable)


class Budget(Generic[Owner]):
    """Tokens of KV cache, granted in whole blocks.

    Args:
        capacity: tokens the engine's pool holds.
        reserve: tokens kept free of streams, so that at least one question of any length can always run.
        block_size: tokens per KV block.
    """

    def __init__(self, capacity: int, reserve: int, block_size: int) -> None:
        self.capacity = capacity
        self._block_size = block_size
        self.limit = max(0, capacity - reserve) // block_size * block_size
        self._granted: dict[Owner, int] = {}
        self.granted = 0

    def of(self, owner: Owner) -> int:
        """What ``owner`` may hold, in tokens."""
        return self._granted.get(owner, 0)

    def owners(self) -> list[Owner]:
        """All who may hold something."""
        return list(self._granted)

    def missing(self, owner: Owner, tokens: int) -> int:
        """How many tokens others would have to give back for ``owner`` to hold so many; 0 or less for none."""
        blocks = self._blocks(tokens)
        return 0 if blocks <= self.of(owner) else self.granted - self.of(owner) + blocks - self.limit

    def grant(self, owner: Owner, tokens: int) -> None:
        """Set what ``owner`` may hold, in tokens.

        Raises:
            Unavailable: the pool has no room; the owner keeps what it had.
        """
        if self.missing(owner, tokens) > 0:
            raise full()
        self.release(owner)
        if blocks := self._blocks(tokens):
            self.granted += blocks
            self._granted[owner] = blocks

    def release(self, owner: Owner) -> None:
        """Take everything back from ``owner``. Idempotent."""
        self.granted -= self._granted.pop(owner, 0)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self._block_size) * self._block_size


def full() -> Unavailable:
    """The refusal where others use all of the KV cache now."""
    return Unavailable(
        "other streams use all of the KV cache now; try again, delete a session, or start the server with a larger "
        "--kv-cache-gb",
        code="kv_cache_full",
        retry_after=5,
    )
