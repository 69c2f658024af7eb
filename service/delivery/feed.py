"""What every subscriber of a session gets, however it is carried: a snapshot first, then changes."""

from __future__ import annotations

from flashquery.evaluator import FlashQueries
from flashquery.events import Event, Subscription
from flashquery.waves import flash_ready
from streams.session import Session


class Feed:
    """Events of one session for one subscriber.

    Args:
        flash: where answers and events come from.
        session: the session.
        subscription: open already, so that nothing between snapshot and first event is missed.
    """

    def __init__(self, flash: FlashQueries, session: Session, subscription: Subscription) -> None:
        self._flash = flash
        self._session = session
        self._subscription = subscription
        self._replayed: dict[int, int] = {}

    async def opening(self) -> list[Event]:
        """``connected``, then every cached answer."""
        registry = self._flash.registry(self._session)
        answers = await self._flash.cache.all(self._session.id)
        connected = {
            "session_id": self._session.id,
            "data_version": self._session.version,
            "flash_queries": len(registry),
        }
        events = [Event("connected", connected)]
        for query in registry:
            if (answer := answers.get(query.id)) is not None:
                events.append(Event("flash_ready", flash_ready(query, answer)))
                self._replayed[query.id] = answer.version
        return events

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after ``timeout`` seconds of silence.

        Raises:
            SubscriptionEnded: nothing more will come.
        """
        event = await self._subscription.next(timeout)
        if event is not None and event.kind == "queries_changed":
            return await self.next(timeout)
        if event is not None and event.kind == "flash_ready":
            replayed = self._replayed.pop(event.data["id"], None)
            if replayed is not None and event.data["data_version"] <= replayed:
                return await self.next(timeout)
        return event
