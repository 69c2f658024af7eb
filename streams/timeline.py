"""A stream's content: runs of data and turns, in the order they happened, and the tokens they render to. Pure, no I/O.

Tokens::

    head | frozen data | data | turn | data | turn | ...

The head ends inside of the first user message. Each run of data stands in an open user message, and the turn after it
begins in that same message. A turn ends with the model's reply.

What leaves through a window leaves from the front, behind the frozen data. So whatever comes first of what stays goes
on in the user message that the head has opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from streams.errors import Conflict
from streams.ingest import Entry
from streams.messages import Message


@dataclass(slots=True)
class Data:
    """A run of entries.

    Attributes:
        opening: markup that closes the reply before it and opens a user message; empty after the head.
        entries: in order of arrival.
    """

    opening: tuple[int, ...] = ()
    entries: list[Entry] = field(default_factory=list)

    @property
    def tokens(self) -> tuple[int, ...]:
        return (*self.opening, *_tokens(self.entries))


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn.

    Attributes:
        messages: what the request added, the reply last.
        tokens: all of that, from where the stream ended before it.
        at: when it was settled, Unix seconds.
    """

    messages: tuple[Message, ...]
    tokens: tuple[int, ...]
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of a timeline a conversation repeats.

    Attributes:
        segments: that many from the beginning stay as they are.
        messages: that many messages of the conversation are in them, or were before they left through the window.
        moved: data that stood behind the cut: it follows what stays.
    """

    segments: int
    messages: int
    moved: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Eviction:
    """What leaves through a window: that many segments from the front, and entries of the run of data after them."""

    segments: int = 0
    entries: int = 0

    def __bool__(self) -> bool:
        return bool(self.segments or self.entries)


@dataclass(slots=True)
class Timeline:
    """Head, frozen data and segments; ``tokens`` is their concatenation, kept flat since everything reads it.

    Attributes:
        head: the template's beginning.
        frozen: data that no window takes away.
        segments: the rest.
        forgotten: what was said in turns that have left through the window: a conversation still repeats it.
        lineage: the same for as long as a timeline only grows at its end.
    """

    head: tuple[int, ...] = ()
    frozen: tuple[Entry, ...] = ()
    segments: list[Data | Turn] = field(default_factory=list)
    forgotten: tuple[Message, ...] = ()
    tokens: list[int] = field(default_factory=list)
    lineage: object = field(default_factory=object, compare=False)

    @classmethod
    def of(
        cls,
        head: tuple[int, ...],
        segments: Sequence[Data | Turn] = (),
        *,
        frozen: tuple[Entry, ...] = (),
        forgotten: tuple[Message, ...] = (),
    ) -> Timeline:
        """A timeline with these segments."""
        timeline = cls(head, frozen, list(segments), forgotten, [*head, *_tokens(frozen)])
        for segment in segments:
            timeline.tokens.extend(segment.tokens)
        return timeline

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def frozen_end(self) -> int:
        """Length of what no window takes away, in tokens."""
        return len(self.head) + sum(len(entry.tokens) for entry in self.frozen)

    @property
    def oldest(self) -> float | None:
        """When the oldest of what can leave came, Unix seconds."""
        for segment in self.segments:
            if isinstance(segment, Turn):
                return segment.at
            if segment.entries:
                return segment.entries[0].at
        return None

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries to the open user message."""
        self._run().entries.extend(entries)
        self.tokens.extend(_tokens(entries))

    def drop(self, entries: Sequence[Entry]) -> None:
        """Take back entries that were appended last."""
        if entries:
            del self._run().entries[-len(entries) :]
            del self.tokens[-sum(len(entry.tokens) for entry in entries) :]

    def before(self, entries: Sequence[Entry]) -> Timeline:
        """This timeline as it was before these entries were appended last."""
        if not entries:
            return self
        last = self._run()
        run = Data(last.opening, last.entries[: -len(entries)])
        return Timeline.of(self.head, [*self.segments[:-1], run], frozen=self.frozen, forgotten=self.forgotten)

    def _run(self) -> Data:
        # The head opens a user message, and so does what follows a turn.
        last = self.segments[-1] if self.segments else None
        if not isinstance(last, Data):
            last = Data()
            self.segments.append(last)
        return last

    def kept(self, messages: Sequence[Message], *, all_of_them: bool = False) -> Kept:
        """Match a conversation, its system message left out, against the turns.

        Args:
            messages: the conversation.
            all_of_them: whether it may end where the timeline does. A turn may not: it asks something, and that comes
                last, after all data.
        """
        matched = len(self.forgotten)
        asks = all_of_them or not matched or len(messages) > matched
        if not asks or not _repeats(messages[:matched], self.forgotten):
            return Kept(0, 0, self.data())
        for index, segment in enumerate(self.segments):
            if isinstance(segment, Data):
                continue
            end = matched + len(segment.messages)
            room = end <= len(messages) if all_of_them else end < len(messages)
            if not room or not _repeats(messages[matched:end], segment.messages):
                return Kept(index, matched, self.data(index))
            matched = end
        return Kept(len(self.segments), matched, ())

    def cut(self, kept: Kept, head: tuple[int, ...], opening: tuple[int, ...], *, user_next: bool) -> Timeline:
        """What stays, with the data from behind the cut at its end.

        Args:
            kept: as :meth:`kept` found.
            head: the beginning, which may be another.
            opening: opens a user message after what stays, if that ends with a turn.
            user_next: the next message is the user's; if not, a user message that was opened for nothing is left out.
        """
        segments = self.segments[: kept.segments]
        last = segments[-1] if segments else None
        if kept.moved:
            if isinstance(last, Data):
                segments[-1] = Data(last.opening, [*last.entries, *kept.moved])
            else:
                segments.append(Data(opening if segments else (), list(kept.moved)))
        elif isinstance(last, Data) and not last.entries and not user_next and len(segments) > 1:
            segments.pop()
        forgotten = self.forgotten if kept.messages else ()
        timeline = Timeline.of(head, segments, frozen=self.frozen, forgotten=forgotten)
        if timeline.tokens[: len(self)] == self.tokens:
            timeline.lineage = self.lineage
        return timeline

    def said(self, turn: Turn, opened: Data) -> Timeline:
        """This timeline and a turn more, and the user message that is open after it."""
        timeline = Timeline.of(self.head, [*self.segments, turn, opened], frozen=self.frozen, forgotten=self.forgotten)
        timeline.lineage = self.lineage
        return timeline

    def without(self, eviction: Eviction) -> Timeline:
        """What stays when this much has left from the front."""
        gone, segments = self.segments[: eviction.segments], self.segments[eviction.segments :]
        if segments and isinstance(segments[0], Data):
            segments[0] = Data((), segments[0].entries[eviction.entries :])
        messages = (message for segment in gone if isinstance(segment, Turn) for message in segment.messages)
        return Timeline.of(self.head, segments, frozen=self.frozen, forgotten=(*self.forgotten, *messages))

    def freeze(self) -> Timeline:
        """All data so far becomes frozen; the tokens stay the same.

        Raises:
            Conflict: there are turns among it.
        """
        if self.forgotten or any(isinstance(segment, Turn) for segment in self.segments):
            raise Conflict(
                "a prefix can only be frozen before the first turn; mark it earlier, or start a new session",
                code="session_has_turns",
            )
        return Timeline.of(self.head, frozen=(*self.frozen, *self.data()))

    @property
    def in_user(self) -> bool:
        """Whether it ends inside of a user message."""
        return not (self.segments and isinstance(self.segments[-1], Turn))

    def data(self, start: int = 0) -> tuple[Entry, ...]:
        """All entries from segment ``start`` on, oldest first, without the frozen ones."""
        runs = (segment for segment in self.segments[start:] if isinstance(segment, Data))
        return tuple(entry for run in runs for entry in run.entries)

    def newest(self, count: int, *, but: int = 0) -> tuple[Entry, ...]:
        """The last ``count`` entries before the last ``but``, oldest first, without the frozen ones."""
        runs = (segment for segment in reversed(self.segments) if isinstance(segment, Data))
        backwards = (entry for run in runs for entry in reversed(run.entries))
        return tuple(islice(backwards, but, but + count))[::-1]


def _repeats(given: Sequence[Message], held: Sequence[Message]) -> bool:
    return len(given) == len(held) and all(said.echoes(known) for said, known in zip(given, held, strict=True))


def _tokens(entries: Sequence[Entry]) -> Iterator[int]:
    return (token for entry in entries for token in entry.tokens)
