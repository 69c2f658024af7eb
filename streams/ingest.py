"""The queue in front of a stream: bounded, oldest dropped first, taken in batches. Pure, no I/O."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Entry:
    """One pushed entry, tokenized.

    Attributes:
        tokens: vocabulary ids, the separator included.
        size: bytes of UTF-8 text, what the queue's byte bound counts.
        at: when it was accepted, Unix seconds.
        record: what statistics are made of; None for raw text.
    """

    tokens: tuple[int, ...]
    size: int
    at: float = 0.0
    record: object = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What the ingest loop took from the queue at once: one batch, one version.

    Attributes:
        entries: in order of arrival.
        last: sequence number of the newest entry (the first entry ever pushed is number 1).
        size: bytes of their text.
        tokens: their length.
    """

    entries: tuple[Entry, ...]
    last: int
    size: int = field(init=False, compare=False)
    tokens: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Every push asks, and there may be thousands.
        object.__setattr__(self, "size", sum(entry.size for entry in self.entries))
        object.__setattr__(self, "tokens", sum(len(entry.tokens) for entry in self.entries))

    @property
    def first(self) -> int:
        """Sequence number of the oldest entry."""
        return self.last - len(self.entries) + 1

    def __len__(self) -> int:
        """Its length in tokens."""
        return self.tokens

    def followed_by(self, other: Batch | None) -> Batch:
        """This batch and the one that was accepted after it, as one."""
        return self if other is None else Batch((*self.entries, *other.entries), other.last)

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

    Invariants: ``total_pushed == total_dropped + taken + len(queue)``, and neither bound is ever exceeded by what is
    offered.
    """

    max_entries: int
    max_bytes: int
    total_pushed: int = 0
    total_dropped: int = 0
    size: int = 0
    tokens: int = 0
    _waiting: deque[Entry] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def next_tokens(self) -> int:
        """Tokens of the entry that comes next; 0 if there is none."""
        return len(self._waiting[0].tokens) if self._waiting else 0

    @property
    def first(self) -> int:
        """Sequence number of the entry that comes next, or would."""
        return self.total_pushed - len(self._waiting) + 1

    @property
    def waiting(self) -> tuple[Entry, ...]:
        """What is queued."""
        return tuple(self._waiting)

    def restore(self, entries: Sequence[Entry], total_pushed: int, total_dropped: int) -> None:
        """Fill an empty queue with what one had that is gone: all of it, for none of it may be dropped twice."""
        self._waiting.extend(entries)
        self.size = sum(entry.size for entry in entries)
        self.tokens = sum(len(entry.tokens) for entry in entries)
        self.total_pushed, self.total_dropped = total_pushed, total_dropped

    def offer(self, entries: Sequence[Entry]) -> int:
        """Queue entries, dropping the oldest that no longer fit. Returns how many were dropped."""
        dropped = 0
        for entry in entries:
            self._waiting.append(entry)
            self.size += entry.size
            self.tokens += len(entry.tokens)
            while len(self._waiting) > self.max_entries or self.size > self.max_bytes:
                self._pop()
                dropped += 1
        self.total_pushed += len(entries)
        self.total_dropped += dropped
        return dropped

    def take(self, room: int | None = None) -> Batch | None:
        """What is queued, as one batch; None when there is nothing.

        Args:
            room: take only as many entries as have this many tokens together.
        """
        taken: list[Entry] = []
        left = self.tokens if room is None else room
        while self._waiting and len(self._waiting[0].tokens) <= left:
            taken.append(self._pop())
            left -= len(taken[-1].tokens)
        return Batch(tuple(taken), self.total_pushed - len(self._waiting)) if taken else None

    def _pop(self) -> Entry:
        oldest = self._waiting.popleft()
        self.size -= oldest.size
        self.tokens -= len(oldest.tokens)
        return oldest
