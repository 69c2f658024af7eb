"""Statistics of one stream, outside of the model. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from streams.entries import EntryType, Statistics
from streams.ingest import Entry

Over = Literal["window", "stream"]


class Tally:
    """Statistics of a whole stream, and of what its window shows.

    Args:
        type: of the entries; None for raw text, of which there is only a count. Raw text between typed entries counts
            in none.
        windowed: whether entries leave.
    """

    def __init__(self, type: EntryType | None, windowed: bool) -> None:
        self._typed = type is not None
        make = _Count if type is None else type.statistics
        self._stream: Statistics[Any] = make(False)
        self._window: Statistics[Any] = make(True) if windowed else self._stream

    def add(self, entries: Iterable[Entry]) -> None:
        """Entries that the model has read."""
        for entry in self._counted(entries):
            self._stream.add(entry.record)
            if self._window is not self._stream:
                self._window.add(entry.record)

    def drop(self, entries: Iterable[Entry]) -> None:
        """Entries that left the window, oldest first: they do not count in it any more."""
        if self._window is not self._stream:
            for _ in self._counted(entries):
                self._window.drop()

    def report(self, over: Over) -> dict[str, Any]:
        """The statistics as JSON values."""
        return (self._window if over == "window" else self._stream).report()

    def _counted(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        return (entry for entry in entries if not self._typed or entry.record is not None)


class _Count(Statistics[object]):
    def report(self) -> dict[str, Any]:
        return {"count": self.count}
