"""What a session's log says, and how that and a session's whole state are spelt as msgpack. Pure, no I/O.

A change is written as a record before it is made, and made by the same function whether it has just been written or is
read back after a restart. Tokens are kept as they are, so that nothing is tokenized or rendered again.
"""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from streams.entries import EntryType
from streams.ingest import Batch, Entry
from streams.messages import Message, ToolCall
from streams.timeline import Data, Timeline, Turn


@dataclass(frozen=True, slots=True)
class Pushed:
    """Entries were accepted."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """The entries with these sequence numbers found no room in the queue."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The entries with these sequence numbers became a version, having been read for so many seconds."""

    first: int
    last: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Turned:
    """A turn was settled.

    Attributes:
        segments, messages: what of the timeline stays; see :class:`~streams.timeline.Kept`.
        head, tail: of the frame from now on; ``head`` None as before.
        system: system prompt from now on.
        opening, user_next: see :meth:`~streams.timeline.Timeline.cut`.
        turn: what was said.
        opened: opens the user message after it.
        computed: length of the prefix that is in the prefix cache.
    """

    segments: int
    messages: int
    head: tuple[int, ...] | None
    tail: tuple[int, ...]
    system: str | None
    opening: tuple[int, ...]
    user_next: bool
    turn: Turn
    opened: tuple[int, ...]
    computed: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The window moved on; see :class:`~streams.timeline.Eviction`."""

    segments: int
    entries: int


@dataclass(frozen=True, slots=True)
class Froze:
    """No window takes away what there was."""


Record = Pushed | Dropped | Settled | Turned | Moved | Froze


@dataclass(frozen=True, slots=True)
class State:
    """A session as of one of its records; attributes as those of :class:`~streams.session.Session`.

    Attributes:
        number: of that record.
        head, tail: of the frame.
        pending: accepted and not settled, oldest first, in runs without a gap.
        tally: statistics of the whole stream.
    """

    number: int
    version: int
    covered: int
    turns: int
    batches: int
    reading_seconds: float
    evicted: int
    total_pushed: int
    total_dropped: int
    system: str | None
    head: tuple[int, ...]
    tail: tuple[int, ...]
    timeline: Timeline
    pending: tuple[Batch, ...]
    tally: Any


class Codec:
    """Packs and unpacks records and states of one session.

    Args:
        type: of its entries.

    All unpacking raises ValueError, TypeError, KeyError or IndexError where the bytes are none of its own.
    """

    def __init__(self, type: EntryType | None) -> None:
        self._type = type

    def pack(self, record: Record) -> bytes:
        """A record."""
        match record:
            case Pushed(entries):
                fields: list[Any] = [self._entries(entries)]
            case Dropped(first, last):
                fields = [first, last]
            case Settled(first, last, seconds):
                fields = [first, last, seconds]
            case Turned():
                fields = [
                    *(record.segments, record.messages),
                    None if record.head is None else _tokens(record.head),
                    *(_tokens(record.tail), record.system, _tokens(record.opening), record.user_next),
                    *(_turn(record.turn), _tokens(record.opened), record.computed),
                ]
            case Moved(segments, entries):
                fields = [segments, entries]
            case Froze():
                fields = []
        packed: bytes = msgpack.packb([type(record).__name__, *fields])
        return packed

    def unpack(self, packed: bytes) -> Record:
        """The inverse of :meth:`pack`."""
        kind, *fields = msgpack.unpackb(packed)
        match kind:
            case "Pushed":
                return Pushed(self._read_entries(fields[0]))
            case "Dropped":
                return Dropped(*fields)
            case "Settled":
                return Settled(*fields)
            case "Turned":
                segments, messages, head, tail, system, opening, user_next, turn, opened, computed = fields
                return Turned(
                    segments=segments,
                    messages=messages,
                    head=None if head is None else _read_tokens(head),
                    tail=_read_tokens(tail),
                    system=system,
                    opening=_read_tokens(opening),
                    user_next=user_next,
                    turn=_read_turn(turn),
                    opened=_read_tokens(opened),
                    computed=computed,
                )
            case "Moved":
                return Moved(*fields)
            case "Froze":
                return Froze()
        raise ValueError(f"no record is of kind {kind!r}")

    def pack_state(self, state: State) -> bytes:
        """A state."""
        timeline = state.timeline
        packed: bytes = msgpack.packb(
            [
                *(state.number, state.version, state.covered, state.turns, state.batches, state.reading_seconds),
                *(state.evicted, state.total_pushed, state.total_dropped),
                *(state.system, _tokens(state.head), _tokens(state.tail)),
                [
                    _tokens(timeline.head),
                    self._entries(timeline.frozen),
                    [self._segment(segment) for segment in timeline.segments],
                    [_message(message) for message in timeline.forgotten],
                ],
                *([[batch.last, self._entries(batch.entries)] for batch in state.pending], state.tally),
            ]
        )
        return packed

    def unpack_state(self, packed: bytes) -> State:
        """The inverse of :meth:`pack_state`."""
        *numbers, system, head, tail, (start, frozen, segments, forgotten), pending, tally = msgpack.unpackb(packed)
        timeline = Timeline.of(
            _read_tokens(start),
            [self._read_segment(segment) for segment in segments],
            frozen=self._read_entries(frozen),
            forgotten=tuple(map(_read_message, forgotten)),
        )
        waiting = tuple(Batch(self._read_entries(entries), last) for last, entries in pending)
        number, version, covered, turns, batches, reading_seconds, evicted, total_pushed, total_dropped = numbers
        return State(
            number=number,
            version=version,
            covered=covered,
            turns=turns,
            batches=batches,
            reading_seconds=reading_seconds,
            evicted=evicted,
            total_pushed=total_pushed,
            total_dropped=total_dropped,
            system=system,
            head=_read_tokens(head),
            tail=_read_tokens(tail),
            timeline=timeline,
            pending=waiting,
            tally=tally,
        )

    def _entries(self, entries: Sequence[Entry]) -> list[Any]:
        # By columns, which takes a fraction of the time of one by one: there may be thousands.
        tokens = array("I")
        for entry in entries:
            tokens.extend(entry.tokens)
        lengths = array("I", [len(entry.tokens) for entry in entries])
        sizes = array("I", [entry.size for entry in entries])
        times = array("d", [entry.at for entry in entries])
        return [_bytes(tokens), _bytes(lengths), _bytes(sizes), _bytes(times), self._records(entries)]

    def _records(self, entries: Sequence[Entry]) -> list[dict[str, Any] | None] | None:
        type = self._type
        if type is None:
            return None
        return [None if entry.record is None else type.pack(entry.record) for entry in entries]

    def _read_entries(self, columns: Sequence[Any]) -> tuple[Entry, ...]:
        *packed, records = columns
        tokens, lengths, sizes, times = map(_array, "IIId", packed)
        if sum(lengths) != len(tokens):
            raise ValueError("entries are not as long together as their tokens are many")
        ends = itertools.accumulate(lengths)
        parts = (tuple(tokens[end - length : end]) for end, length in zip(ends, lengths, strict=True))
        return tuple(
            Entry(part, size, at, None if record is None or self._type is None else self._type.unpack(record))
            for part, size, at, record in zip(parts, sizes, times, records or [None] * len(sizes), strict=True)
        )

    def _segment(self, segment: Data | Turn) -> list[Any]:
        if isinstance(segment, Turn):
            return _turn(segment)
        return [_tokens(segment.opening), self._entries(segment.entries)]

    def _read_segment(self, value: Sequence[Any]) -> Data | Turn:
        if len(value) != 2:
            return _read_turn(value)
        return Data(_read_tokens(value[0]), list(self._read_entries(value[1])))


def _tokens(tokens: Sequence[int]) -> bytes:
    return _bytes(array("I", tokens))


def _read_tokens(packed: bytes) -> tuple[int, ...]:
    return tuple(_array("I", packed))


def _bytes(values: array[Any]) -> bytes:
    """Little-endian; tokens take four bytes each."""
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def _array(kind: str, packed: bytes) -> array[Any]:
    values: array[Any] = array(kind, packed)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _turn(turn: Turn) -> list[Any]:
    return [[_message(message) for message in turn.messages], _tokens(turn.tokens), turn.at]


def _read_turn(value: Sequence[Any]) -> Turn:
    messages, tokens, at = value
    return Turn(tuple(map(_read_message, messages)), _read_tokens(tokens), at)


def _message(message: Message) -> Mapping[str, Any]:
    calls = [[call.id, call.name, call.arguments] for call in message.calls]
    fields = {
        "role": message.role,
        "content": message.content,
        "reasoning": message.reasoning,
        "calls": calls,
        "call_id": message.call_id,
        "raw": message.raw,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _read_message(value: Mapping[str, Any]) -> Message:
    calls = tuple(ToolCall(*call) for call in value.get("calls", ()))
    return Message(**{**value, "calls": calls})
