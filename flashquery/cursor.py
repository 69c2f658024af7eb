"""Where a subscriber stands in the events of its sessions, as one short text."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Id = tuple[int, int]
"""Where an event stands in its session's log: milliseconds of Redis's clock, and a number within them."""

TEXT_MAX = 4096
"""Longest text, in bytes; a request's header has room for twice that."""

_MS_MAX = 2**53
_SEQ_MAX = 2**64 - 1
_TEXT = re.compile(r"([0-9]{1,16})(?::((?:[A-Za-z0-9_-]{1,128}\.[0-9]{1,20},?)+))?")


def read_id(text: bytes | str) -> Id:
    """An id as Redis writes it, ``milliseconds-number``."""
    ms, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(seq)


def write_id(at: Id) -> str:
    """The inverse of :func:`read_id`."""
    return f"{at[0]}-{at[1]}"


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything before a millisecond was told, and of some sessions also some of what happened in it.

    Events of all sessions are told in the order in which one Redis executed them, so their milliseconds never fall, and
    only the newest of them can have been told in part.

    Attributes:
        ms: the millisecond, of Redis's clock.
        told: the number of the last event in it that was told, of the sessions that had one.
    """

    ms: int
    told: dict[str, int] = field(default_factory=dict)

    def moved(self, session_id: str, at: Id) -> Cursor:
        """The cursor after an event of a session."""
        ms, seq = at
        if ms < self.ms:
            return self
        return Cursor(ms, {**(self.told if ms == self.ms else {}), session_id: seq})

    def of(self, session_id: str) -> Id:
        """The position in a session's log up to which, itself included, everything was told."""
        seq = self.told.get(session_id)
        return (self.ms - 1, _SEQ_MAX) if seq is None else (self.ms, seq)

    def __str__(self) -> str:
        """``milliseconds``, then ``:session.number`` of those that were told, separated by commas.

        Empty where that would be too long: a client then stays where it was, and is told some events again.
        """
        told = ",".join(f"{session_id}.{seq}" for session_id, seq in self.told.items())
        text = f"{self.ms}:{told}" if told else str(self.ms)
        return text if len(text) <= TEXT_MAX else ""

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """The inverse of ``str``. Raises ValueError."""
        match = _TEXT.fullmatch(text) if len(text) <= TEXT_MAX else None
        if match is None:
            raise ValueError("must be the `id` of an event, as it was received")
        told = [one.split(".") for one in (match[2] or "").split(",") if one]
        cursor = cls(int(match[1]), {session_id: int(seq) for session_id, seq in told})
        # What is written otherwise than here was not received from here.
        if not 0 < cursor.ms < _MS_MAX or max(cursor.told.values(), default=0) > _SEQ_MAX or str(cursor) != text:
            raise ValueError("must be the `id` of an event, as it was received")
        return cursor
