"""A push on its way: handed in to the log, then queued, then acknowledged."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from streams import tracing
from streams.errors import Unavailable
from streams.ingest import Entry
from streams.journal import UNSURE, WRITE_SECONDS
from streams.log import Log
from streams.records import Dropped, Pushed
from streams.session import Session


@dataclass(frozen=True, slots=True)
class PushAck:
    """What a push is answered with: how things stand when it has been queued; see :class:`~streams.session.Session` and
    :class:`~streams.ingest.IngestQueue`.

    Attributes:
        pushed: its entries.
        tokens: their length.
        dropped: entries of whatever push that found no room any more.
    """

    pushed: int
    tokens: int
    dropped: int
    pending: int
    pending_bytes: int
    total_pushed: int
    total_dropped: int
    data_version: int


class Push:
    """Entries that are handed in to be written, behind those of every push before, and are queued once they are.

    Args:
        log: where they are written.
        session: where to.
        entries: at least one.

    Raises:
        Unavailable: the session is another server's, or too much waits for the store.
    """

    def __init__(self, log: Log, session: Session, entries: tuple[Entry, ...]) -> None:
        self._log = log
        self._session = session
        self._entries = entries
        self._tokens = sum(len(entry.tokens) for entry in entries)
        self._ack: PushAck | None = None
        self._noted: Callable[[], Awaitable[None]] | None = None
        session.backlog.arriving += self._tokens
        try:
            self._written = log.hand_in(session, Pushed(entries), self._accept, timeout=WRITE_SECONDS)
        except Unavailable:
            session.backlog.arriving -= self._tokens
            raise

    def _accept(self) -> None:
        session, queue = self._session, self._session.queue
        session.backlog.arriving -= self._tokens
        first = queue.first
        dropped = queue.offer(self._entries)
        session.backlog.causes.add(queue.total_pushed, tracing.current())
        session.wake()
        self._ack = PushAck(
            pushed=len(self._entries),
            tokens=self._tokens,
            dropped=dropped,
            pending=session.pending,
            pending_bytes=session.backlog.size,
            total_pushed=queue.total_pushed,
            total_dropped=queue.total_dropped,
            data_version=session.version,
        )
        if dropped:
            # What was pushed is stored: it must not be refused because this is not.
            with suppress(Unavailable):
                noted = Dropped(first, first + dropped - 1)
                self._noted = self._log.hand_in(session, noted, lambda: None, timeout=WRITE_SECONDS)

    async def acknowledged(self) -> PushAck:
        """Wait until the entries are written and queued, and what they displaced is noted. To be called once.

        Raises:
            Unavailable: they were not written in time, or the session is another server's; see
                :meth:`streams.journal.Journal.hand_in`.
        """
        try:
            await self._written()
        except Unavailable as error:
            if error.code != UNSURE:
                self._session.backlog.arriving -= self._tokens
            raise
        if self._noted is not None:
            with suppress(Unavailable):
                await self._noted()
        assert self._ack is not None  # noqa: S101
        return self._ack
