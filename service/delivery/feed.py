"""What every subscriber gets, however it is carried: of each session a snapshot first, then changes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from flashquery.events import Event, Subscription
from flashquery.waves import flash_ready
from service.core import Core
from streams.errors import NotFound
from streams.session import Session

_REPLIES = frozenset({"push_ack", "pong", "error"})

Shape = Callable[[Event], Event | None]
"""Puts an event as the subscriber is to see it; None leaves it out."""


def bare(event: Event) -> Event | None:
    """For who watches one session: knows whose an event is, and takes the end of the feed for the session's."""
    return None if event.kind == "deleted" else event


def labelled(event: Event) -> Event | None:
    """For who watches several: every event says whose it is."""
    if not event.session_id:
        return event
    return Event(event.kind, {"session_id": event.session_id, **event.data}, event.session_id)


def _rounded(event: Event) -> Event:
    """With times in whole seconds, as clients get them."""
    if event.kind != "flash_ready":
        return event
    data = {**event.data, "evaluated_at": int(event.data["evaluated_at"])}
    return Event(event.kind, data, event.session_id)


@dataclass(slots=True)
class _Watched:
    """A session of the feed.

    Attributes:
        session: the session.
        pin: keeps it from expiring until closed.
        version: the one that ``connected`` told.
        replayed: by query, version and time of the answer in the snapshot; None until that is taken.
    """

    session: Session
    pin: ExitStack = field(default_factory=ExitStack)
    version: int = 0
    replayed: dict[int, tuple[int, float]] | None = None


class Feed:
    """Events of sessions for one subscriber. Use as a context manager: while it is open, they do not expire.

    Of each session: ``connected``, every cached answer, and then what happens until it is ``deleted``. The feed goes on
    until the last session that was named is deleted; with a prefix it has no end of its own.

    Args:
        core: where sessions, answers and events come from.
        sessions: named ones.
        prefix: all whose ids start so, those to come included.
        shape: how events are put.

    Attributes:
        queue: what waits for the subscriber; replies to it may be added.
    """

    queue: Subscription

    def __init__(
        self, core: Core, sessions: Iterable[Session] = (), prefix: str | None = None, shape: Shape = bare
    ) -> None:
        self._manager, self._flash = core.manager, core.flash
        self._named = tuple(sessions)
        self._prefix = prefix
        self._shape = shape
        self._watched: dict[str, _Watched] = {}
        self._unopened: deque[_Watched] = deque()
        self._ready: deque[Event] = deque()
        self._stack = ExitStack()

    def __enter__(self) -> Feed:
        named = (session.id for session in self._named)
        # Subscribed before any snapshot is taken, so that nothing between it and the first event is missed.
        self.queue = self._stack.enter_context(self._flash.hub.subscribe(*named, prefix=self._prefix))
        for session in self._named:
            self._watch(session)
        if self._prefix is not None:
            for session in self._manager.sessions():
                if session.id.startswith(self._prefix):
                    self._watch(session)
        return self

    def __exit__(self, *_: object) -> None:
        for watched in self._watched.values():
            watched.pin.close()
        self._stack.close()

    async def begin(self) -> None:
        """Take the first snapshot, so that a store that does not answer is told of before anything is sent.

        Raises:
            RedisError: it does not.
        """
        if self._unopened:
            await self._open(self._unopened.popleft())

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after ``timeout`` seconds of silence.

        Raises:
            SubscriptionEnded: nothing more will come.
            RedisError: a snapshot cannot be taken.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            if self._ready:
                event: Event | None = self._ready.popleft()
            elif self._unopened:
                await self._open(self._unopened.popleft())
                continue
            else:
                event = await self.queue.next(max(0.0, until - loop.time()))
                if event is None:
                    return None
                event = self._heard(event)
            shown = None if event is None else self._shape(_rounded(event))
            if shown is not None:
                return shown

    def _watch(self, session: Session) -> None:
        if session.id in self._watched:
            return
        watched = self._watched[session.id] = _Watched(session)
        watched.pin.enter_context(session.pinned())
        self._unopened.append(watched)

    async def _open(self, watched: _Watched) -> None:
        """``connected``, then every cached answer."""
        session = watched.session
        answers = await self._flash.cache.all(session.id)
        try:
            registry = self._flash.registry(session)
        except NotFound:
            return  # deleted before its turn, as will be told
        # Taken after the answers, so that none of them is of a version that was not told of.
        connected = {"session_id": session.id, "data_version": session.version, "flash_queries": len(registry)}
        # An acknowledgement comes before what its data causes, and some of that may be in the snapshot.
        self._ready.extend(self.queue.pull("push_ack"))
        self._ready.append(Event("connected", connected, session.id))
        watched.version, watched.replayed = session.version, {}
        for query in registry:
            if (answer := answers.get(query.id)) is not None:
                self._ready.append(Event("flash_ready", flash_ready(query, answer), session.id))
                watched.replayed[query.id] = answer.version, answer.evaluated_at

    def _heard(self, event: Event) -> Event | None:
        """The event, if it is for subscribers and not told yet."""
        if event.kind in _REPLIES:
            return event
        watched = self._watched.get(event.session_id)
        if event.kind == "created":
            self._created(event.session_id)
            return None
        if watched is None or event.kind == "queries_changed":
            return None
        if event.kind == "deleted":
            del self._watched[event.session_id]
            watched.pin.close()
            return event
        if watched.replayed is None:
            return None
        if event.kind == "data_updated" and event.data["data_version"] <= watched.version:
            return None
        if event.kind == "flash_ready":
            replayed = watched.replayed.get(event.data["id"])
            # A query that was changed is evaluated again over the same version.
            if replayed is not None and (event.data["data_version"], event.data["evaluated_at"]) <= replayed:
                return None
        return event

    def _created(self, session_id: str) -> None:
        try:
            self._watch(self._manager.get(session_id))
        except NotFound:
            return  # and deleted already
