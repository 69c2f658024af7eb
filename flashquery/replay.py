"""What a subscriber missed, of all its sessions, in the order in which it happened."""

from __future__ import annotations

import heapq
from collections import deque
from typing import cast

from flashquery.cursor import Cursor, Id
from flashquery.eventlog import EventLog
from flashquery.events import Event, SubscriptionEnded

# Held at once, of all sessions together.
_EVENTS = 1024


class Replay:
    """Reads the logs of sessions side by side, from a position on, a page of each at a time.

    Args:
        log: of events.
        after: the position.
        until: the last millisecond that is replayed. Later ones are heard live, if the subscription is older than that.
        sessions: how many there are.

    Attributes:
        told: where each session's replay has come to. Of what is heard live, all up to there is known.
    """

    def __init__(self, log: EventLog, after: Cursor, until: int, sessions: int) -> None:
        self._log = log
        self._after = after
        self._until = until
        self._page = max(1, _EVENTS // max(1, sessions))
        self._waiting: dict[str, deque[Event]] = {}
        self._oldest: list[tuple[Id, str]] = []
        self.told: dict[str, Id] = {}

    async def begin(self, session_ids: set[str]) -> dict[str, Event | None]:
        """Take the sessions in of which nothing is missing; their newest events that were told already."""
        position = {session_id: self._after.of(session_id) for session_id in session_ids}
        taken: dict[str, Event | None] = {}
        for session_id, page in (await self._log.read(position, self._until, self._page)).items():
            if page.follows(position[session_id], exactly=session_id in self._after.told):
                taken[session_id] = page.before
                self.told[session_id] = position[session_id]
                self._queue(session_id, page.events)
        return taken

    async def next(self) -> Event | None:
        """The next event; None when everything was replayed.

        Raises:
            SubscriptionEnded: events leave the log faster than they are taken here.
        """
        if not self._oldest:
            return None
        at, session_id = heapq.heappop(self._oldest)
        waiting = self._waiting[session_id]
        event = waiting.popleft()
        self.told[session_id] = at
        if waiting:
            heapq.heappush(self._oldest, (cast(Id, waiting[0].at), session_id))
        else:
            page = (await self._log.read({session_id: at}, self._until, self._page))[session_id]
            if not page.follows(at, exactly=True):
                raise SubscriptionEnded("lagging")
            self._queue(session_id, page.events)
        return event

    def _queue(self, session_id: str, events: list[Event]) -> None:
        if events:
            self._waiting[session_id] = deque(events)
            heapq.heappush(self._oldest, (cast(Id, events[0].at), session_id))
