"""The last events of every session, kept so that a subscriber that was away can be told what it missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from flashquery import keys
from flashquery.cursor import Id, read_id, write_id
from flashquery.events import Event, pack, unpack
from streams.journal import Command
from streams.store import execute, in_time

# Only for whoever waits in this moment.
_PASSING: Final = frozenset({"queries_changed"})
_BEGINNINGS: Final = frozenset({"created", "deleted"})
_SESSIONS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a log, after a position in it.

    Attributes:
        before: the newest event that is kept up to and with that position.
        events: those after it, oldest first.
    """

    before: Event | None
    events: list[Event]

    def follows(self, position: Id, *, exactly: bool) -> bool:
        """Whether nothing is missing between the position and what is here.

        Events leave a log oldest first. So nothing is missing while something older is kept, or where a log begins.

        Args:
            position: the position.
            exactly: it is that of an event, which has to be there itself.
        """
        if self.before is not None:
            return not exactly or self.before.at == position
        return bool(self.events) and self.events[0].kind in _BEGINNINGS


class EventLog:
    """The logs of all sessions.

    Args:
        redis: client that returns bytes.
        kept: events per session; the oldest go.
    """

    def __init__(self, redis: Redis, kept: int) -> None:
        self._redis = redis
        self._kept = kept

    def publish(self, session_id: str, event: Event) -> list[Command]:
        """The commands that keep an event and tell every listening process.

        With ``deleted`` a session's other events go, and that one stays for an hour.
        """
        channel, packed = keys.events(session_id), pack(event)
        if event.kind in _PASSING:
            return [("PUBLISH", channel, b" " + packed)]
        key, last = keys.event_log(session_id), event.kind == "deleted"
        # Keeping and publishing is one step, so that the order of a session's log is that in which everybody hears.
        kept: list[Command] = [("EVENT", key, channel, self._kept, packed)]
        if last:
            kept.append(("XTRIM", key, "MAXLEN", "=", 1))
        return [*kept, ("EXPIRE", key, keys.DELETED_SECONDS if last else keys.ANSWERS_SECONDS)]

    async def remember_deletion(self, session_id: str) -> None:
        """A session is about to be deleted. What is told of it stands in its own log.

        That all sessions share what is written here keeps it out of the session's own writes. Where it is lost with a
        Redis that is away, subscribers to a prefix who are away as well do not hear of the deletion.
        """
        with suppress(RedisError, OSError):
            async with in_time():
                deleted: dict[Any, Any] = {"session": session_id}
                await self._redis.xadd(keys.DELETIONS, deleted, maxlen=keys.DELETIONS_MAX, approximate=False)

    async def now(self) -> int:
        """Redis's clock, in milliseconds."""
        async with in_time():
            seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def read(self, after: Mapping[str, Id], until: int, count: int) -> dict[str, Page]:
        """What happened to sessions.

        Args:
            after: the position in each one's log after which to begin.
            until: the last millisecond of interest.
            count: events per session at most.
        """
        sessions = list(after)
        pages: dict[str, Page] = {}
        for start in range(0, len(sessions), _SESSIONS_AT_ONCE):
            some = sessions[start : start + _SESSIONS_AT_ONCE]
            async with in_time(), self._redis.pipeline(transaction=False) as pipe:
                for session_id in some:
                    key, position = keys.event_log(session_id), write_id(after[session_id])
                    # In this order: what is there before the position when the rest has been read was there before.
                    pipe.xrange(key, f"({position}", str(until), count)
                    pipe.xrevrange(key, position, "-", 1)
                found = await execute(pipe)
            for session_id, entries, before in zip(some, found[::2], found[1::2], strict=True):
                events = _events(session_id, entries)
                pages[session_id] = Page(next(iter(_events(session_id, before)), None), events)
        return pages

    async def deletions(self, since: int) -> set[str] | None:
        """The sessions that were deleted since a time of Redis's clock, in milliseconds; None if that is not known."""
        if since < await self.now() - 1000 * keys.DELETED_SECONDS:
            return None
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xrange(keys.DELETIONS, str(since))
            pipe.xlen(keys.DELETIONS)
            found, length = await execute(pipe)
        if length == len(found) == keys.DELETIONS_MAX:
            return None
        return {fields[b"session"].decode() for _, fields in found}


def _events(session_id: str, entries: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[Event]:
    return [_event(session_id, at, fields[b"event"]) for at, fields in entries]


def _event(session_id: str, at: bytes, packed: bytes) -> Event:
    return unpack(packed, session_id, read_id(at))
