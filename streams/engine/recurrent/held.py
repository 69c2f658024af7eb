"""A sequence that llama.cpp's process keeps the state of."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from streams.engine.base import Priority
from streams.engine.recurrent import child
from streams.engine.recurrent.loop import Read
from streams.errors import AskaheadError, Conflict, ContextLengthExceeded
from streams.waiting import uninterrupted

if TYPE_CHECKING:
    from streams.engine.recurrent.engine import RecurrentEngine


class RecurrentHeld:
    """A :class:`~streams.engine.base.Held` sequence.

    Calls wait for each other. When :meth:`extend` fails or is cancelled, the hold can only be released.
    """

    def __init__(self, engine: RecurrentEngine, priority: Priority, number: int) -> None:
        self._engine = engine
        self._priority = priority
        self._number = number
        self._tokens = 0
        self._cached = 0
        self._over = False
        self._lock = asyncio.Lock()

    @property
    def tokens(self) -> int:
        return self._tokens

    @property
    def cached(self) -> int:
        return self._cached

    @property
    def lost(self) -> bool:
        return self._engine.dead

    async def extend(self, tokens: Sequence[int]) -> None:
        """See :meth:`streams.engine.base.Held.extend`.

        Raises:
            ContextLengthExceeded: with these tokens no room for an answer would be left; nothing was done.
            Conflict: the hold was released, or lost when an earlier call failed or was cancelled.
        """
        async with self._lock:
            if not tokens:
                return
            if self._over:
                raise Conflict("These tokens are no longer held; hold the stream again.")
            context, total = self._engine.facts.context, self._tokens + len(tokens)
            if total >= context:
                raise ContextLengthExceeded(
                    f"The stream would have {total} tokens, and the context of {context} must hold it and at least "
                    "one token of an answer. Push less, or set a window."
                )
            self._engine.check_tokens(tokens)
            try:
                with self._engine.request() as (number, answers):
                    self._engine.tell(child.Extend(number, self._priority, self._number, array("i", tokens)))
                    read = await answers.get()
                    if not isinstance(read, Read):
                        raise read if isinstance(read, AskaheadError) else TypeError(read)
            except BaseException:
                self._give_back()
                raise
            if not self._tokens:
                self._cached = read.cached
            self._tokens = total

    async def release(self) -> None:
        await uninterrupted(self._release())

    async def _release(self) -> None:
        async with self._lock:
            self._give_back()

    def _give_back(self) -> None:
        if not self._over:
            self._engine.tell(child.Release(self._number))
        self._over = True
        self._tokens = 0
