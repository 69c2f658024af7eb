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
        self._type = type
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

    def state(self) -> dict[str, Any]:
        """What :meth:`restore` takes, of msgpack's types."""
        return self._stream.state(_nothing if self._type is None else self._type.pack)

    def restore(self, state: object, window: Iterable[Entry]) -> None:
        """Become what had this state, from a tally without entries.

        Args:
            state: of a tally of the same type.
            window: the entries that count in the statistics of what the window shows, oldest first.

        Raises:
            ValueError: it is no state of such a tally, which is of no use any more.
        """
        self._stream.restore(state, _nothing if self._type is None else self._type.unpack)
        if self._window is not self._stream:
            for entry in self._counted(window):
                self._window.add(entry.record)

    def _counted(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        return (entry for entry in entries if self._type is None or entry.record is not None)


def _nothing(_: object) -> None:
    """Raw text has no records."""


class _Count(Statistics[object]):
    def report(self) -> dict[str, Any]:
        return {"count": self.count}
