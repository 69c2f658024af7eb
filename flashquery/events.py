"""Events of sessions: one Redis listener per process, fanned out to a bounded queue per subscriber."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import msgpack
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import RedisError

from flashquery import keys
from streams.errors import Unavailable

log = logging.getLogger(__name__)

Kind = Literal["connected", "data_updated", "flash_ready", "queries_changed", "deleted", "push_ack", "pong", "error"]
Ended = Literal["closed", "deleted", "lagging", "resync", "shutdown"]

_START_SECONDS = 10.0
_RETRY_SECONDS = 0.5
_POLL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a session; ``data`` is what clients get to see."""

    kind: Kind
    data: dict[str, Any]

    def publish(self, pipe: Pipeline, session_id: str) -> None:
        """Add the command that tells every listening process."""
        pipe.publish(keys.events(session_id), msgpack.packb([self.kind, self.data]))


class SubscriptionEnded(Exception):
    """No more events will come; ``reason`` says why. Subscribe again and start from a snapshot."""

    def __init__(self, reason: Ended) -> None:
        super().__init__(reason)
        self.reason: Ended = reason


class Subscription:
    """One subscriber's queue.

    Args:
        backlog: events that may wait; a subscriber that falls further behind is ended, it never slows others.
    """

    def __init__(self, backlog: int) -> None:
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
        backlog: see :class:`Subscription`.
    """

    def __init__(self, redis: Redis, backlog: int) -> None:
        self._redis = redis
        self._backlog = backlog
        self._subscribers: dict[str, set[Subscription]] = {}
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
        return sum(map(len, self._subscribers.values()))

    @contextmanager
    def subscribe(self, session_id: str) -> Iterator[Subscription]:
        """Events of a session from now on. Take the snapshot to start from after subscribing, not before."""
        subscription = Subscription(self._backlog)
        if self._closed:
            subscription.end("shutdown")
        group = self._subscribers.setdefault(session_id, set())
        group.add(subscription)
        try:
            yield subscription
        finally:
            group.discard(subscription)
            if not group and self._subscribers.get(session_id) is group:
                del self._subscribers[session_id]

    def _end_all(self, reason: Ended) -> None:
        for group in self._subscribers.values():
            for subscription in group:
                subscription.end(reason)

    async def _listen(self) -> None:
        failing = False
        while True:
            try:
                async with self._redis.pubsub() as pubsub:
                    await pubsub.psubscribe(keys.EVENTS_PATTERN)
                    failing = False
                    await self._relay(pubsub)
            except (RedisError, OSError, TimeoutError) as error:
                if not failing:
                    log.error("lost the connection that events come through: %s", error)
                failing = True
                await asyncio.sleep(_RETRY_SECONDS)

    async def _relay(self, pubsub: PubSub) -> None:
        while True:
            message = await pubsub.get_message(timeout=_POLL_SECONDS)
            if message is None:
                continue
            if message["type"] == "psubscribe":
                self._subscribed()
                continue
            session_id = keys.session_of(message["channel"].decode())
            group = self._subscribers.get(session_id)
            if not group:
                continue
            try:
                kind, data = msgpack.unpackb(message["data"])
            except ValueError:
                log.warning("an event of session %s is not one of ours and was left out", session_id)
                continue
            for subscription in tuple(group):
                if kind == "deleted":
                    subscription.end("deleted")
                else:
                    subscription.offer(Event(kind, data))

    def _subscribed(self) -> None:
        """The server has confirmed: events come through from now on.

        After the first time this tells of a gap, also of one that the client mended by itself. Subscribers start
        again now and not when the connection was lost: a snapshot taken before the gap's end could miss events.
        """
        if self._listening.is_set():
            log.info("listening for events again")
            self._end_all("resync")
        self._listening.set()
