"""What a sequence takes of a KV cache. Pure, no I/O."""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one sequence takes of the blocks that all sequences share.

    Layers that see all of a sequence, those that see its end and those that keep a state are in groups of their own,
    and each group takes its own blocks.

    Attributes:
        block_size: tokens per block.
        bounds: for each group that keeps tokens, the most blocks that a sequence takes in it; None where it keeps all.
        states: blocks of recurrent state, which a sequence takes whatever its length.
    """

    block_size: int
    bounds: tuple[int | None, ...] = (None,)
    states: int = 0

    def blocks(self, tokens: int) -> int:
        """Blocks that a sequence of so many tokens takes."""
        if tokens <= 0:
            return 0
        whole = -(-tokens // self.block_size)
        return self.states + sum(whole if bound is None else min(whole, bound) for bound in self.bounds)

    def tokens(self, blocks: int) -> int:
        """The longest sequence that so many blocks hold; ``sys.maxsize`` or so where its length does not matter."""
        return bisect_right(range(sys.maxsize), max(0, blocks), key=self.blocks) - 1

    def reserve(self, blocks: int, context: int) -> int:
        """Tokens of a question that must always find room: any that the model takes, but half of the blocks at most."""
        return min(context, self.tokens(blocks // 2))
