"""The queue in front of a stream: bounded, oldest dropped first, taken whole as one batch. Pure, no I/O."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Entry:
    """One pushed entry, tokenized.

    Attributes:
        tokens: vocabulary ids, the separator included.
        size: bytes of UTF-8 text, what the queue's byte bound counts.
    """

    tokens: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that was queued when the ingest loop woke: one batch, one version.

    Attributes:
        entries: in order of arrival.
        last: sequence number of the newest entry (the first entry ever pushed is number 1).
        accepted_at: monotonic seconds at which the oldest entry was accepted.
    """

    entries: tuple[Entry, ...]
    last: int
    accepted_at: float

    @property
    def tokens(self) -> list[int]:
        return [token for entry in self.entries for token in entry.tokens]

    def split(self, tokens: int) -> tuple[Batch | None, Batch | None]:
        """The entries that the first ``tokens`` tokens hold whole, and the rest; None for what is empty."""
        ends = itertools.accumulate(len(entry.tokens) for entry in self.entries)
        count = sum(1 for _ in itertools.takewhile(lambda end: end <= tokens, ends))
        first, rest = self.entries[:count], self.entries[count:]
        return (
            replace(self, entries=first, last=self.last - len(rest)) if first else None,
            replace(self, entries=rest) if rest else None,
        )


@dataclass(slots=True)
class IngestQueue:
    """Entries that wait to be read.

    Args:
        max_entries: entries held at most.
        max_bytes: bytes of text held at most. A single entry beyond it is refused by the caller, never queued.

    Invariants: ``total_pushed == total_dropped + taken + len(queue)``, and neither bound is ever exceeded.
    """

    max_entries: int
    max_bytes: int
    total_pushed: int = 0
    total_dropped: int = 0
    size: int = 0
    tokens: int = 0
    _waiting: deque[tuple[float, Entry]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(self, entries: Sequence[Entry], now: float | None = None) -> int:
        """Queue entries, dropping the oldest that no longer fit. Returns how many were dropped."""
        accepted_at = time.monotonic() if now is None else now
        dropped = 0
        for entry in entries:
            self._waiting.append((accepted_at, entry))
            self.size += entry.size
            self.tokens += len(entry.tokens)
            while len(self._waiting) > self.max_entries or self.size > self.max_bytes:
                _, oldest = self._waiting.popleft()
                self.size -= oldest.size
                self.tokens -= len(oldest.tokens)
                dropped += 1
        self.total_pushed += len(entries)
        self.total_dropped += dropped
        return dropped

    def take(self) -> Batch | None:
        """Everything queued, as one batch; None when there is nothing."""
        if not self._waiting:
            return None
        accepted_at = self._waiting[0][0]
        batch = Batch(tuple(entry for _, entry in self._waiting), self.total_pushed, accepted_at)
        self._waiting.clear()
        self.size = self.tokens = 0
        return batch
