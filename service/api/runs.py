"""What a request for generation does to the metrics while it runs, and how it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.metrics import Metrics


class Run:
    """One request for generation, from its admission on.

    Args:
        metrics: told what happens.
        started: when the request came, on the monotonic clock.
        prompt_tokens: length of its prompt.
    """

    def __init__(self, metrics: Metrics, started: float, prompt_tokens: int) -> None:
        self.metrics = metrics
        self._started = started
        self._seen = False
        self._ended = False
        metrics.counters.requests_started += 1
        metrics.counters.prompt_tokens += prompt_tokens

    def step(self, tokens: int, *, session_cached: int, prefix_cached: int = 0) -> None:
        """Take note of a piece.

        Args:
            tokens: how many it has.
            session_cached: tokens of the prompt that a session held; counted with the first piece.
            prefix_cached: tokens of the prompt that were in the prefix cache besides; likewise.
        """
        counters = self.metrics.counters
        if not self._seen:
            self._seen = True
            self.metrics.generate_first_token.observe(time.monotonic() - self._started)
            counters.session_cached_tokens += session_cached
            counters.prefix_cached_tokens += prefix_cached
        counters.steps += 1
        counters.generated_tokens += tokens

    def succeeded(self) -> None:
        """Take note that the answer is complete."""
        self._ended = True
        self.metrics.counters.requests_ok += 1
        self.metrics.generate_total.observe(time.monotonic() - self._started)

    def failed(self, error: BaseException) -> None:
        """Take note that it will not be completed, unless it was."""
        if self._ended:
            return
        self._ended = True
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            self.metrics.counters.requests_cancelled += 1
        else:
            self.metrics.counters.requests_failed += 1


@contextmanager
def running(metrics: Metrics, started: float, prompt_tokens: int) -> Iterator[Run]:
    """A run that fails with whatever is raised inside."""
    run = Run(metrics, started, prompt_tokens)
    try:
        yield run
    except BaseException as error:
        run.failed(error)
        raise
