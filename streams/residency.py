"""What of a token sequence the KV cache holds, and how it gets there: in slices that let others in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.engine.base import Engine, Held, Priority
from streams.pacer import Pacer


class _Stopped(Exception):
    """Reading ends here for now."""


class Resident:
    """Tokens whose KV is held. One reader at a time.

    The engine's holds only grow. Where the goal takes another way, a new hold begins with what both have in common,
    found in the prefix cache, and the old one serves until that is there.

    Args:
        engine: holds.
        pacers: one per rank, which share the engine.
        priority: of reading.
        rank: where.
    """

    def __init__(
        self, engine: Engine, pacers: Sequence[Pacer], priority: Priority = Priority.INGEST, *, rank: int = 0
    ) -> None:
        self._engine = engine
        self._pacer = pacers[rank]
        self._priority = priority
        self.rank = rank
        self._hold: Held | None = None
        self._content: list[int] = []

    @property
    def content(self) -> list[int]:
        """What is resident: nothing any more, once the engine that held it has died."""
        if self._hold is not None and self._hold.lost:
            self._content = []
        return self._content

    @property
    def cached(self) -> int:
        """Tokens that the prefix cache had when the present hold began."""
        return 0 if self._hold is None else self._hold.cached

    def covers(self, goal: Sequence[int]) -> bool:
        """Whether all of ``goal`` is resident."""
        return self.content[: len(goal)] == list(goal)

    def shared(self, goal: Sequence[int]) -> int:
        """How many tokens of ``goal``, from its beginning, are resident."""
        return common_length(self.content, goal)

    async def read(self, goal: Sequence[int], *, computed: int = 0, stop: Callable[[], bool] = lambda: False) -> bool:
        """Make ``goal`` resident. Returns False if it was stopped before that.

        Args:
            goal: all tokens, from the first.
            computed: that many of them were computed by another request just now: they are in the prefix cache.
            stop: asked between slices.

        Raises:
            EngineUnavailable: the engine died; nothing is resident any more.
        """
        if self._hold is not None and self._hold.lost:
            await self.release()
        shared = self.shared(goal)
        known = max(shared, min(computed, len(goal)))
        if shared < len(self.content) or known - shared > self._engine.facts.block_size:
            if stop():
                return False
            await self._begin(goal[:known])
        while (start := len(self.content)) < len(goal):
            try:
                async with self._pacer.slice(len(goal) - start) as size:
                    if stop():
                        # Raised, and not returned: a slice that nobody used must not teach the pacer.
                        raise _Stopped
                    await self._extend(goal[start : start + size])
            except _Stopped:
                return False
        return True

    async def release(self) -> None:
        """Give everything back. Idempotent."""
        if (hold := self.let_go()) is not None:
            await hold.release()

    def let_go(self) -> Held | None:
        """Hold nothing any more; returns what is to be released for that."""
        hold, self._hold, self._content = self._hold, None, []
        return hold

    async def _begin(self, known: Sequence[int]) -> None:
        fresh = self._engine.hold(self._priority, self.rank)
        if known:
            # Nearly nothing is computed here, so it takes a turn, but no time worth measuring.
            async with self._pacer.slice(1):
                try:
                    await fresh.extend(known)
                except BaseException:
                    await fresh.release()
                    raise
        old, self._hold, self._content = self._hold, fresh, list(known)
        if old is not None:
            await old.release()

    async def _extend(self, tokens: Sequence[int]) -> None:
        if self._hold is None:
            self._hold = self._engine.hold(self._priority, self.rank)
        try:
            await self._hold.extend(tokens)
        except BaseException:
            # The hold is lost, and with it its blocks.
            await self.release()
            raise
        self._content.extend(tokens)


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common beginning of two token sequences."""
    low, high = 0, min(len(one), len(other))
    if list(one[:high]) == list(other[:high]):
        return high
    # Comparing slices is so much faster than comparing tokens one by one that halving pays.
    while low < high:
        middle = (low + high + 1) // 2
        if list(one[low:middle]) == list(other[low:middle]):
            low = middle
        else:
            high = middle - 1
    return low
