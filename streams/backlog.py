"""What a stream has accepted and not read to its end. Pure, no I/O."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.ingest import Batch, IngestQueue
from streams.records import Settled
from streams.tracing import Causes


@dataclass(slots=True)
class Backlog:
    """In order of arrival: the batch that is being read, what was set aside for a turn, the queue, and what is being
    written to the log.

    Attributes:
        queue: entries that nobody has taken yet.
        arriving: tokens of entries that are being written to the log; they are accepted once they are.
        batch: what was taken last and is not settled.
        parked: taken, and left for later.
        causes: traces in which it was pushed.
    """

    queue: IngestQueue
    arriving: int = 0
    batch: Batch | None = None
    parked: Batch | None = None
    causes: Causes = field(default_factory=Causes)
    _taken: float = 0.0

    @property
    def entries(self) -> int:
        """Entries accepted and not yet resident."""
        return len(self.queue) + sum(len(batch.entries) for batch in self._batches)

    @property
    def size(self) -> int:
        """Their size in bytes of text."""
        return self.queue.size + sum(batch.size for batch in self._batches)

    @property
    def tokens(self) -> int:
        """Tokens that are in no timeline yet."""
        return self.arriving + self.queue.tokens + (len(self.parked) if self.parked else 0)

    @property
    def next_tokens(self) -> int:
        """Tokens of the entry that is read next; 0 if none waits."""
        return len(self.parked.entries[0].tokens) if self.parked else self.queue.next_tokens

    @property
    def waits(self) -> bool:
        """Whether there is something to take."""
        return bool(self.parked or len(self.queue))

    @property
    def _batches(self) -> tuple[Batch, ...]:
        return tuple(batch for batch in (self.batch, self.parked) if batch is not None)

    def take(self, room: int | None) -> Batch | None:
        """Begin to read what waits; what was set aside comes first, and alone.

        Args:
            room: take only as many entries as have this many tokens together.
        """
        if self.parked is None:
            batch = self.queue.take(room)
        elif room is None:
            batch, self.parked = self.parked, None
        else:
            batch, self.parked = self.parked.split(room)
        if batch is not None:
            self.begin(batch)
        return batch

    def begin(self, batch: Batch) -> None:
        """This is being read now."""
        self.batch, self._taken = batch, time.monotonic()

    def set_aside(self, tokens: int) -> Batch | None:
        """Leave the entries of the batch being read that its first ``tokens`` tokens do not hold whole for later.

        Returns what was left.
        """
        if self.batch is None:
            return None
        self.batch, rest = self.batch.split(tokens)
        if rest is not None:
            self.parked = rest.followed_by(self.parked)
        return rest

    def unsettled(self) -> Settled | None:
        """The record that makes the batch being read a version; None if there is no such batch."""
        batch = self.batch
        return None if batch is None else Settled(batch.first, batch.last, time.monotonic() - self._taken)

    def settle(self) -> Batch:
        """The batch being read is resident; returns it."""
        batch, self.batch = self.batch, None
        assert batch is not None  # noqa: S101
        self.causes.forget(batch.last)
        return batch

    def waiting(self) -> tuple[Batch, ...]:
        """All that is not settled: two batches at most, and only the last reaches to the newest entry."""
        queued = self.queue.waiting
        return (*self._batches, Batch(queued, self.queue.total_pushed)) if queued else self._batches

    def restore(self, batches: Sequence[Batch], total_pushed: int, total_dropped: int) -> None:
        """Have waiting what :meth:`waiting` told of one that is gone."""
        queued = batches[-1].entries if batches and batches[-1].last == total_pushed else ()
        self.queue.restore(queued, total_pushed, total_dropped)
        for batch in reversed(batches[: len(batches) - bool(queued)]):
            self.parked = batch.followed_by(self.parked)
