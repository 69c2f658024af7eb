"""Sessions back from their logs: the snapshot, and every record after it applied again."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from streams import keys
from streams.ingest import Batch, Entry
from streams.log import Options
from streams.records import Codec, Dropped, Froze, Moved, Pushed, Record, Settled, State, Turned
from streams.session import Session
from streams.state import restore
from streams.store import in_time
from streams.timeline import Eviction

_PAGE = 256


@dataclass(frozen=True, slots=True)
class Stored:
    """What Redis has of a session.

    Attributes:
        options: what it was created with.
        state: as of some record; None for that of a new session.
        records: all after that, packed.
        number: of the newest record.
        last_used: Unix seconds; None if nobody has said so.
        seen: when the server that owned it was last alive, Unix seconds; likewise.
    """

    options: Options
    state: State | None
    records: tuple[bytes, ...]
    number: int
    last_used: float | None
    seen: float | None

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return sum(map(len, self.records))


async def read(redis: Redis, session_id: str) -> Stored | None:
    """What there is of a session; None where that is nothing.

    Raises:
        RedisError: Redis does not answer.
        ValueError, TypeError, KeyError, IndexError: what it has is not ours.
    """
    async with in_time():
        meta = cast(dict[bytes, bytes], await redis.hgetall(keys.meta(session_id)))
        snapshot = cast(bytes | None, await redis.get(keys.snapshot(session_id)))
    if b"options" not in meta:
        return None
    options = Options.unpack(meta[b"options"])
    state = None if snapshot is None else await asyncio.to_thread(Codec(options.type).unpack_state, snapshot)
    number = 0 if state is None else state.number
    records: list[bytes] = []
    while True:
        async with in_time():
            page: Any = await redis.xrange(keys.log(session_id), min=f"{number + 1}-0", count=_PAGE)
        records.extend(fields[b"record"] for _, fields in page)
        if page:
            number = int(page[-1][0].split(b"-")[0])
        if len(page) < _PAGE:
            break
    used, seen = (float(meta[name]) if name in meta else None for name in (b"last_used", b"seen"))
    return Stored(options, state, tuple(records), number, used, seen)


def rebuild(session: Session, stored: Stored) -> None:
    """Bring a session that was just made to where its log ends. Nothing of it is resident.

    Raises:
        ValueError, TypeError, KeyError, IndexError: the log is damaged.
    """
    codec = Codec(stored.options.type)
    replay = _Replay(session)
    if stored.state is not None:
        replay.begin(stored.state)
    for packed in stored.records:
        replay.apply(codec.unpack(packed))
    replay.end()
    # What turns computed was in another engine's prefix cache.
    session.computed = 0
    if stored.last_used is not None and stored.seen is not None:
        # The time that no server was there is nobody's idleness.
        session.last_used = time.time() - max(0.0, stored.seen - stored.last_used)


class _Replay:
    """Applies records to a session that has no engine behind it yet."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pending: deque[tuple[int, Entry]] = deque()
        self._pushed = 0
        self._dropped = 0

    def begin(self, state: State) -> None:
        restore(self._session, state)
        self._pushed, self._dropped = state.total_pushed, state.total_dropped
        for batch in state.pending:
            self._pending.extend(enumerate(batch.entries, batch.first))

    def apply(self, record: Record) -> None:
        session = self._session
        match record:
            case Pushed(entries):
                self._pending.extend(enumerate(entries, self._pushed + 1))
                self._pushed += len(entries)
            case Dropped(first, last):
                kept = [(number, entry) for number, entry in self._pending if not first <= number <= last]
                self._dropped += len(self._pending) - len(kept)
                self._pending = deque(kept)
            case Settled(first, last, _):
                read: list[Entry] = []
                while self._pending and self._pending[0][0] <= last:
                    number, entry = self._pending.popleft()
                    if number >= first:
                        read.append(entry)
                    else:
                        # It had found no room in the queue, and that was not written any more.
                        self._dropped += 1
                if len(read) != last - first + 1:
                    raise ValueError(f"entries {first} to {last} are not all there")
                session.replay(Batch(tuple(read), last), record)
            case Turned():
                session.settle_turn(record)
            case Moved(segments, entries):
                session.settle_move(Eviction(segments, entries), session.held)
            case Froze():
                session.freeze()

    def end(self) -> None:
        runs: list[list[tuple[int, Entry]]] = []
        for number, entry in self._pending:
            if not runs or runs[-1][-1][0] != number - 1:
                runs.append([])
            runs[-1].append((number, entry))
        batches = [Batch(tuple(entry for _, entry in run), run[-1][0]) for run in runs]
        self._session.backlog.restore(batches, self._pushed, self._dropped)
