"""How much of a stream the model sees: windows in tokens and in seconds, and what leaves through them. Pure, no I/O.

A window moves in jumps: what stays is read anew, without a gap, so positions are exact and answers are those of a fresh
stream. When the limit is passed, everything leaves that is not among the newest half. So each token is read about twice
in all, once when it comes and once when the window moves.
"""

from __future__ import annotations

from dataclasses import dataclass

from streams.timeline import Data, Eviction, Timeline

# How far beyond its limit a window in tokens may grow while it moves, as a share of it.
_SLACK = 16


@dataclass(frozen=True, slots=True)
class Window:
    """Limits of a stream; None for none.

    Attributes:
        tokens: the stream, its frozen prefix included, in tokens.
        seconds: age of its oldest data and turns.
    """

    tokens: int | None = None
    seconds: float | None = None

    @property
    def slack(self) -> int:
        """Tokens by which data may exceed the window while it moves. A turn is let in whole."""
        return 0 if self.tokens is None else max(1, self.tokens // _SLACK)

    @property
    def limit(self) -> int | None:
        """Tokens that data may fill at most."""
        return None if self.tokens is None else self.tokens + self.slack

    def largest(self, frozen: int) -> int | None:
        """Tokens that one entry may have, given a frozen prefix of ``frozen`` tokens."""
        return None if self.tokens is None else (self.tokens - frozen) // 2

    def overdue(self, timeline: Timeline, coming: int, now: float) -> bool:
        """Whether something has to leave, an entry of ``coming`` tokens being next."""
        if self.tokens is not None and (len(timeline) > self.tokens or self._lacking(timeline, coming) > 0):
            return True
        expiry = self.expiry(timeline)
        return expiry is not None and expiry <= now

    def expiry(self, timeline: Timeline) -> float | None:
        """When the oldest has to leave because of its age, Unix seconds."""
        oldest = timeline.oldest
        return None if self.seconds is None or oldest is None else oldest + self.seconds

    def eviction(self, timeline: Timeline, coming: int, now: float) -> Eviction:
        """What leaves: all but the newest half, in tokens and in seconds, and more if the next entry needs it."""
        excess = 0
        if self.tokens is not None:
            frozen = timeline.frozen_end
            excess = max(len(timeline) - frozen - (self.tokens - frozen) // 2, self._lacking(timeline, coming))
        since = float("-inf") if self.seconds is None else now - self.seconds / 2
        for index, segment in enumerate(timeline.segments):
            if isinstance(segment, Data):
                excess -= len(segment.opening)
                for number, entry in enumerate(segment.entries):
                    if excess <= 0 and entry.at >= since:
                        return Eviction(index, number)
                    excess -= len(entry.tokens)
            elif excess <= 0 and segment.at >= since:
                return Eviction(index)
            else:
                excess -= len(segment.tokens)
        # A run of data stays open at the end, be it empty.
        last = timeline.segments[-1] if timeline.segments else None
        if isinstance(last, Data):
            return Eviction(len(timeline.segments) - 1, len(last.entries))
        return Eviction(len(timeline.segments))

    def _lacking(self, timeline: Timeline, coming: int) -> int:
        """Tokens that the next entry has no room for."""
        return 0 if self.limit is None or not coming else len(timeline) + coming - self.limit


NO_WINDOW = Window()
"""The stream only grows."""
