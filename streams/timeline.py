"""A stream's content: runs of data and turns, in the order they happened, and the tokens they render to. Pure, no I/O.

Tokens::

    head | data | turn | data | turn | ...

The head ends inside of the first user message. Each run of data stands in an open user message, and the turn after it
begins in that same message. A turn ends with the model's reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.messages import Message


@dataclass(slots=True)
class Data:
    """A run of entries.

    Attributes:
        opening: markup that closes the reply before it and opens a user message; empty after the head.
        tokens: the entries.
    """

    opening: tuple[int, ...] = ()
    tokens: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Turn:
    """A finished turn.

    Attributes:
        messages: what the request added, the reply last.
        tokens: all of that, from where the stream ended before it.
    """

    messages: tuple[Message, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """How much of a timeline a conversation repeats.

    Attributes:
        segments: that many from the beginning stay as they are.
        messages: that many messages of the conversation are in them.
        moved: data that stood behind the cut: it follows what stays.
    """

    segments: int
    messages: int
    moved: tuple[int, ...]


@dataclass(slots=True)
class Timeline:
    """Head and segments; ``tokens`` is their concatenation, kept flat since everything reads it.

    Args:
        head: the template's beginning.
    """

    head: tuple[int, ...] = ()
    segments: list[Data | Turn] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, head: tuple[int, ...], segments: Sequence[Data | Turn]) -> Timeline:
        """A timeline with these segments."""
        timeline = cls(head, list(segments), list(head))
        for segment in segments:
            if isinstance(segment, Data):
                timeline.tokens.extend(segment.opening)
            timeline.tokens.extend(segment.tokens)
        return timeline

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was said in turns so far, without the system's message."""
        return tuple(m for segment in self.segments if isinstance(segment, Turn) for m in segment.messages)

    def append(self, tokens: Sequence[int]) -> None:
        """Add entries to the open user message."""
        self._run().tokens.extend(tokens)
        self.tokens.extend(tokens)

    def drop(self, count: int) -> None:
        """Take back the last ``count`` tokens of entries."""
        if count:
            del self._run().tokens[-count:]
            del self.tokens[-count:]

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
        matched = 0
        for index, segment in enumerate(self.segments):
            if isinstance(segment, Data):
                continue
            end = matched + len(segment.messages)
            room = end <= len(messages) if all_of_them else end < len(messages)
            if not room or not all(
                given.echoes(held) for given, held in zip(messages[matched:end], segment.messages, strict=True)
            ):
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
                segments[-1] = Data(last.opening, [*last.tokens, *kept.moved])
            else:
                segments.append(Data(opening if segments else (), list(kept.moved)))
        elif isinstance(last, Data) and not last.tokens and not user_next and len(segments) > 1:
            segments.pop()
        return Timeline.of(head, segments)

    @property
    def in_user(self) -> bool:
        """Whether it ends inside of a user message."""
        return not (self.segments and isinstance(self.segments[-1], Turn))

    def data(self, start: int = 0) -> tuple[int, ...]:
        """All entries from segment ``start`` on."""
        runs = (segment for segment in self.segments[start:] if isinstance(segment, Data))
        return tuple(token for run in runs for token in run.tokens)
