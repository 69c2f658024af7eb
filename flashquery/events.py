"""Events of sessions: one Redis listener per process, fanned out to a bounded queue per subscriber."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import msgpack
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from flashquery import keys
from flashquery.cursor import Id, read_id
from streams import context, tracing
from streams.errors import Unavailable
from streams.journal import Journal
from streams.store import listening

log = logging.getLogger(__name__)

Kind = Literal[
    "created", "connected", "data_updated", "flash_ready", "queries_changed", "deleted", "push_ack", "pong", "error"
]
Ended = Literal["closed", "deleted", "lagging", "resync", "shutdown"]

_START_SECONDS = 10.0
_RETRY_SECONDS = 0.5
_POLL_SECONDS = 5.0
_RELAYED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session.

    Attributes:
        kind: what.
        data: what clients get to see.
        session_id: whose it is, where it was heard; empty for what concerns a connection alone.
        at: where it stands in the session's log, where it was heard; None for what is not kept.
        position: what a subscriber resumes with after it, empty where it cannot.
        trace: ``traceparent`` of what has led to it, where it was heard and that is recorded.
    """

    kind: Kind
    data: dict[str, Any]
    session_id: str = ""
    at: Id | None = field(default=None, compare=False)
    position: str = field(default="", compare=False)
    trace: str = field(default="", compare=False)


def pack(event: Event) -> bytes:
    """As msgpack: kind, data and, if that is recorded, the trace that it happens in."""
    trace = tracing.current()
    packed: bytes = msgpack.packb([event.kind, event.data, *([trace] if tracing.sampled(trace) else ())])
    return packed


def unpack(packed: bytes, session_id: str, at: Id | None) -> Event:
    """The inverse of :func:`pack`. Raises ValueError."""
    kind, data, *trace = msgpack.unpackb(packed)
    return Event(kind, data, session_id, at, trace=trace[0] if trace else "")


def _unpack(message: bytes, session_id: str) -> Event:
    """What was published: the id in the log, empty if there is none, a space, and the event. Raises ValueError."""
    at, _, packed = message.partition(b" ")
    return unpack(packed, session_id, read_id(at) if at else None)


class SubscriptionEnded(Exception):
    """No more events will come; ``reason`` says why. Subscribe again and resume, or start from a snapshot."""

    def __init__(self, reason: Ended) -> None:
        super().__init__(reason)
        self.reason: Ended = reason


class Subscription:
    """One subscriber's queue.

    Args:
        backlog: events that may wait, of all its sessions together; a subscriber that falls further behind is ended, it
            never slows others.
        named: ids of the sessions that were asked for by name.

    Attributes:
        named: those of them that live.
    """

    def __init__(self, backlog: int, named: Iterable[str]) -> None:
        self.named = set(named)
        self._backlog = backlog
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._ended: Ended | None = None

    def offer(self, event: Event) -> None:
        """Queue an event."""
        if self._ended is None and len(self._events) >= self._backlog:
            self._events.clear()
            self.end("lagging")
        if self._ended is None:
            self._events.append(event)
            self._ready.set()

    def pull(self, kind: Kind) -> list[Event]:
        """Take the waiting events of a kind out of their turn."""
        pulled = [event for event in self._events if event.kind == kind]
        self._events = deque(event for event in self._events if event.kind != kind)
        return pulled

    def end(self, reason: Ended) -> None:
        """No further events; those queued are still delivered."""
        if self._ended is None:
            self._ended = reason
            self._ready.set()

    async def next(self, timeout: float) -> Event | None:
        """The next event, or None after ``timeout`` seconds without one.

        Raises:
            SubscriptionEnded: nothing more will come.
        """
        if not self._events and self._ended is None:
            self._ready.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._ready.wait()
            except TimeoutError:
                return None
        if self._events:
            return self._events.popleft()
        if self._ended is not None:
            raise SubscriptionEnded(self._ended)
        return None


class Hub:
    """Fans events out. Use as an async context manager: it owns the listening task.

    Entering raises Unavailable if Redis does not answer.

    Args:
        redis: where events come from.
        journal: of this process. What it has sent is told when it knows that this is stored, and no sooner: whoever
            hears of an answer, or comes too late to hear of it, finds it where this process keeps what is stored.
        backlog: see :class:`Subscription`.
    """

    def __init__(self, redis: Redis, journal: Journal, backlog: int) -> None:
        self._redis = redis
        self._journal = journal
        self._backlog = backlog
        self._subscriptions: set[Subscription] = set()
        self._named: dict[str, set[Subscription]] = {}
        self._prefixed: dict[Subscription, str] = {}
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> Hub:
        self._task = asyncio.create_task(self._listen(), name="event-listener")
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._listening.wait()
        except BaseException as error:
            await self.__aexit__()
            if isinstance(error, TimeoutError):
                raise Unavailable("Redis does not answer; check --redis-url", code="store_unavailable") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def close(self) -> None:
        """End every subscription, present and future, as the server goes away."""
        self._closed = True
        self._end_all("shutdown")

    @property
    def subscribers(self) -> int:
        """Subscriptions open in this process."""
        return len(self._subscriptions)

    @contextmanager
    def subscribe(self, *session_ids: str, prefix: str | None = None) -> Iterator[Subscription]:
        """Events of sessions from now on. Take the snapshot to start from after subscribing, not before.

        Args:
            session_ids: each until it is deleted; with the last of them the subscription ends.
            prefix: every session whose id starts so, also those to come; the subscription does not end with them.
        """
        subscription = Subscription(self._backlog, session_ids)
        if self._closed:
            subscription.end("shutdown")
        self._subscriptions.add(subscription)
        for session_id in session_ids:
            self._named.setdefault(session_id, set()).add(subscription)
        if prefix is not None:
            self._prefixed[subscription] = prefix
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            self._prefixed.pop(subscription, None)
            for session_id in subscription.named:
                self._forget(session_id, subscription)

    def _forget(self, session_id: str, subscription: Subscription) -> None:
        group = self._named[session_id]
        group.discard(subscription)
        if not group:
            del self._named[session_id]

    def _end_all(self, reason: Ended) -> None:
        for subscription in self._subscriptions:
            subscription.end(reason)

    async def _listen(self) -> None:
        failing = False
        while True:
            try:
                async with listening(self._redis, keys.EVENTS_PATTERN) as pubsub:
                    failing = False
                    await self._relay(pubsub)
            except (RedisError, OSError, TimeoutError) as error:
                if not failing:
                    log.error("lost the connection that events come through: %s", error)
                failing = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _relay(self, pubsub: PubSub) -> None:
        for number in count(1):
            if number % _RELAYED_AT_ONCE == 0:
                # What is buffered comes without a pause, and subscribers need one to keep up.
                await asyncio.sleep(0)
            message = await pubsub.get_message(timeout=_POLL_SECONDS)
            if message is None:
                continue
            if message["type"] == "psubscribe":
                self._subscribed()
                continue
            session_id = keys.session_of(message["channel"].decode())
            await self._journal.confirmed(session_id)
            hearing = {one for one, prefix in self._prefixed.items() if session_id.startswith(prefix)}
            hearing |= self._named.get(session_id, set())
            if not hearing:
                continue
            try:
                event = _unpack(message["data"], session_id)
            except ValueError:
                with context.about(session_id):
                    log.warning("an event of session %s is not one of ours and was left out", session_id)
                continue
            for subscription in hearing:
                subscription.offer(event)
            if event.kind == "deleted":
                self._deleted(session_id)

    def _deleted(self, session_id: str) -> None:
        """Whoever named a session is done with it: another of its name is not what was meant."""
        for subscription in self._named.pop(session_id, set()):
            subscription.named.discard(session_id)
            if not subscription.named and subscription not in self._prefixed:
                subscription.end("deleted")

    def _subscribed(self) -> None:
        """The server has confirmed: events come through from now on.

        After the first time this tells of a gap, also of one that the client mended by itself. Subscribers start
        again now and not when the connection was lost: a snapshot taken before the gap's end could miss events.
        """
        if self._listening.is_set():
            log.info("listening for events again")
            self._end_all("resync")
        self._listening.set()
