"""The durable log: what happens to a session is written first, and happens once it is.

The log of a session is a Redis stream of records (:mod:`streams.records`) behind a snapshot of its state. When the
records outgrow the snapshot there is a new one, and they are trimmed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack

from streams import keys
from streams.entries import EntryType, pack_type, unpack_type
from streams.journal import Journal
from streams.leases import Leases
from streams.records import Codec, Pushed, Record
from streams.session import Session
from streams.state import captured
from streams.window import Window

# A log shorter than this, in bytes, is read back in no time.
_SMALL = 256 << 10
# Writing snapshots at most doubles what is written in all.
_RATIO = 2


@dataclass(frozen=True, slots=True)
class Options:
    """What a session is created with; see :class:`~streams.session.Session`.

    Attributes:
        model: of which its tokens are.
    """

    created: float
    model: str
    system: str | None
    type: EntryType | None
    window: Window
    pre_decode: bool
    labels: frozenset[str]

    def pack(self) -> bytes:
        """As msgpack."""
        packed: bytes = msgpack.packb(
            {
                "created": self.created,
                "model": self.model,
                "system": self.system,
                "type": pack_type(self.type),
                "window": [self.window.tokens, self.window.seconds],
                "pre_decode": self.pre_decode,
                "labels": sorted(self.labels),
            }
        )
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> Options:
        """The inverse of :meth:`pack`."""
        fields: dict[str, Any] = msgpack.unpackb(packed)
        return cls(
            **fields
            | {
                "type": unpack_type(fields["type"]),
                "window": Window(*fields["window"]),
                "labels": frozenset(fields["labels"]),
            }
        )


class Log(Protocol):
    """Where what happens to sessions is written before it happens."""

    async def begin(self, session_id: str, options: Options) -> None:
        """There will be such a session.

        Raises:
            Conflict: there is one of that id.
            Unavailable: it cannot be written.
        """

    def hand_in(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> Callable[[], Awaitable[None]]:
        """Have a record written behind those that were handed in before, and then applied. Returns what waits for that.

        It is applied even if nobody waits.

        Raises:
            Unavailable: the session is another server's. What waits raises the same, and where it was not written
                within ``timeout`` seconds from now.
        """

    async def write(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> None:
        """Write a record, then ``apply`` it, then return; otherwise as :meth:`hand_in`."""

    def changing(self, session: Session, timeout: float | None = None) -> AbstractAsyncContextManager[None]:
        """Have the timeline to change it, once it is known of every record before whether it is written.

        Raises:
            Unavailable: it is not known, or whoever has the timeline waits for the store, for ``timeout`` seconds.
        """

    async def end(self, session: Session) -> None:
        """There is no such session any more. Returns when that is written.

        Raises:
            Unavailable: the session is another server's.
        """


@dataclass(slots=True)
class _Length:
    """Bytes of a session's log since its snapshot, and how many it may grow to."""

    codec: Codec
    size: int
    limit: int


class RedisLog:
    """A :class:`Log` in Redis.

    Args:
        journal: writes.
        leases: of the sessions.

    Attributes:
        fences: of the sessions that are this server's.
    """

    def __init__(self, journal: Journal, leases: Leases) -> None:
        self._journal = journal
        self._leases = leases
        self._lengths: dict[str, _Length] = {}
        self.fences: dict[str, int] = {}

    async def begin(self, session_id: str, options: Options) -> None:
        fence = await self._leases.create(session_id, {"options": options.pack()})
        self.open(session_id, options.type, fence, 0, 0)

    def open(self, session_id: str, type: EntryType | None, fence: int, number: int, size: int) -> None:
        """Go on with a session that is this server's.

        Args:
            session_id: which.
            type: of its entries.
            fence: of the ownership.
            number: of the newest record.
            size: of the records since the snapshot, in bytes.
        """
        self.fences[session_id] = fence
        self._lengths[session_id] = _Length(Codec(type), size, _SMALL)
        self._journal.open(session_id, fence, number)

    def forget(self, session_id: str) -> None:
        """The session is not this server's any more."""
        self._journal.close(session_id)
        self.fences.pop(session_id, None)
        self._lengths.pop(session_id, None)

    def hand_in(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> Callable[[], Awaitable[None]]:
        length = self._length(session)
        packed = length.codec.pack(record)
        if isinstance(record, Pushed):
            self._journal.check_room(len(packed))

        def applied(number: int) -> None:
            apply()
            length.size += len(packed)
            if length.size > length.limit:
                self._compact(session, length, number)

        return self._journal.hand_in(session.id, [("LOG", keys.log(session.id), packed)], applied, timeout=timeout)

    async def write(
        self, session: Session, record: Record, apply: Callable[[], object], *, timeout: float | None = None
    ) -> None:
        await self.hand_in(session, record, apply, timeout=timeout)()

    def _compact(self, session: Session, length: _Length, number: int) -> None:
        packed = length.codec.pack_state(captured(session, number))
        length.size, length.limit = 0, max(_SMALL, _RATIO * len(packed))
        commands = [
            ("SET", keys.snapshot(session.id), packed),
            ("XTRIM", keys.log(session.id), "MINID", f"{number + 1}-0"),
        ]
        self._journal.put(session.id, "snapshot", commands)

    def changing(self, session: Session, timeout: float | None = None) -> AbstractAsyncContextManager[None]:
        return self._journal.changing(session.id, session.reading, timeout)

    async def end(self, session: Session) -> None:
        session_id = session.id
        fence = self.fences.get(session_id)
        if fence is None:
            raise self._journal.moved(session_id)
        names = (keys.meta(session_id), keys.snapshot(session_id), keys.log(session_id), keys.owner(session_id))
        commands = [
            ("DEL", *names),
            # Sent again because its reply was lost, it is known to be done.
            ("HSET", keys.guard(session_id), "ended", fence),
            ("HINCRBY", keys.guard(session_id), "fence", 1),
            ("EXPIRE", keys.guard(session_id), keys.TOMBSTONE_SECONDS),
        ]
        await self._journal.write(session_id, commands, timeout=None)
        self.forget(session_id)
        await self._leases.tidy(session_id)

    def _length(self, session: Session) -> _Length:
        length = self._lengths.get(session.id)
        if length is None:
            raise self._journal.moved(session.id)
        return length
