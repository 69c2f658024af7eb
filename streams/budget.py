"""Admission: who may hold how much of the KV cache. Pure, no I/O.

An engine that is asked to hold more than its pool has blocks everything, so nothing is sent to it that was not
granted here first.
"""

from __future__ import annotations

from collections.abc import Hashable

from streams.errors import Unavailable


class Budget:
    """Tokens of KV cache, granted to streams in whole blocks.

    Args:
        capacity: tokens the engine's pool holds.
        reserve: tokens kept free of streams, so that at least one question of any length can always run.
        block_size: tokens per KV block.
    """

    def __init__(self, capacity: int, reserve: int, block_size: int) -> None:
        self.capacity = capacity
        self.limit = max(0, capacity - reserve)
        self._block_size = block_size
        self._granted: dict[Hashable, int] = {}
        self.granted = 0

    def grant(self, owner: Hashable, tokens: int) -> None:
        """Set what ``owner`` may hold, in tokens.

        Raises:
            Unavailable: the pool has no room; the owner keeps what it had.
        """
        blocks = -(-tokens // self._block_size) * self._block_size if tokens else 0
        before = self._granted.get(owner, 0)
        if blocks > before and self.granted - before + blocks > self.limit:
            raise Unavailable(
                f"the KV cache is full: streams hold {self.granted} of {self.limit} tokens and this one needs "
                f"{blocks - before} more; delete a session, or start the server with a larger --kv-cache-gb",
                code="kv_cache_full",
                retry_after=5,
            )
        self.granted += blocks - before
        if blocks:
            self._granted[owner] = blocks
        else:
            self._granted.pop(owner, None)

    def release(self, owner: Hashable) -> None:
        """Take everything back from ``owner``. Idempotent."""
        self.granted -= self._granted.pop(owner, 0)
