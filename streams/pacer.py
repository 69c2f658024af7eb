"""Who may use the engine now: ingest goes in slices and lets questions in between them.

A running prefill is never interrupted, so a question that arrives behind a slice waits for all of it. Slices are
therefore sized in time, not in tokens: as many tokens as this machine reads in ``seconds``, fewer while a question is
being answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

# Ingest lets waiting questions go first, but questions without a pause between them must not starve it.
_QUIET_SECONDS = 0.5
_SMOOTHING = 0.3


@dataclass(frozen=True, slots=True)
class SlicePolicy:
    """How long a slice may keep the engine.

    Attributes:
        seconds: aimed duration of a slice while nobody asks.
        seconds_busy: the same while a foreground question is being answered.
        tokens_min, tokens_max: bounds of a slice, in tokens.
        tokens_first: size used before any slice was timed.
    """

    seconds: float = 0.3
    seconds_busy: float = 0.1
    tokens_min: int = 32
    tokens_max: int = 1024
    tokens_first: int = 128

    def size(self, rate: float | None, busy: bool, step: int = 0) -> int:
        """Tokens for the next slice.

        Args:
            rate: as measured, in tokens per second.
            busy: a foreground question is being answered.
            step: tokens that the engine computes in one step at most; 0 for no bound. What is longer is whole steps:
                the rest of one would cost nearly as much as a whole one.
        """
        if rate is None:
            return self.tokens_first
        wanted = int(rate * (self.seconds_busy if busy else self.seconds))
        size = min(max(wanted, self.tokens_min), self.tokens_max)
        return size - size % step if 0 < step < size else size


class Question:
    """A foreground question in flight; the pacer's side of it."""

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self.waiting = True

    def first_token(self) -> None:
        """Its prefill is over: ingest may go on beside its decoding."""
        if self.waiting:
            self.waiting = False
            self._pacer.leave()


class Pacer:
    """Shares one rank of an engine between ingest and foreground questions.

    Args:
        policy: how long a slice may be.
        step: tokens that the engine computes in one step at most; 0 for no bound.
    """

    def __init__(self, policy: SlicePolicy, step: int = 0) -> None:
        self.policy = policy
        self._step = step
        self.rate: float | None = None
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._in_flight = 0
        self._waiting = 0
        self._asking = 0

    @contextmanager
    def question(self) -> Iterator[Question]:
        """Announce a foreground question for as long as it runs."""
        self._asking += 1
        self._waiting += 1
        self._quiet.clear()
        question = Question(self)
        try:
            yield question
        finally:
            question.first_token()
            self._asking -= 1

    @property
    def waiting(self) -> int:
        """Foreground questions without a first token yet."""
        return self._waiting

    def leave(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._quiet.set()

    @asynccontextmanager
    async def slice(self, wanted: int) -> AsyncIterator[int]:
        """Wait for a turn at ingest; yields how many of the ``wanted`` tokens may go now.

        Streams take turns in order of arrival; small slices of several streams share an engine step as long as
        together they stay within one slice.
        """
        async with self._turn:
            await self._until_quiet()
            while self._in_flight >= (limit := self._limit()):
                self._freed.clear()
                await self._freed.wait()
            size = min(wanted, limit - self._in_flight)
            self._in_flight += size
        load = self._in_flight
        started = time.monotonic()
        try:
            yield size
        except BaseException:
            self._done(size)
            raise
        self._observe(load, time.monotonic() - started)
        self._done(size)

    def _limit(self) -> int:
        return self.policy.size(self.rate, self._asking > 0, self._step)

    def _done(self, size: int) -> None:
        self._in_flight -= size
        self._freed.set()

    def _observe(self, tokens: int, seconds: float) -> None:
        if tokens >= self.policy.tokens_min and seconds > 0:
            # Small slices measure the engine's fixed cost per step, not its speed.
            rate = tokens / seconds
            self.rate = rate if self.rate is None else self.rate + _SMOOTHING * (rate - self.rate)

    async def _until_quiet(self) -> None:
        if self._quiet.is_set():
            return
        try:
            async with asyncio.timeout(_QUIET_SECONDS):
                await self._quiet.wait()
        except TimeoutError:
            return
