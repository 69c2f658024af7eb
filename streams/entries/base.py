"""What a type of entry is: how an object is checked, how it reads, and what is counted of it."""

from __future__ import annotations

from typing import Any, Protocol


class Statistics(Protocol):
    """Running statistics of records."""

    def add(self, record: Any) -> None:
        """Count one more record."""

    def drop(self) -> None:
        """The oldest record does not count any more. Only of statistics made for a window."""

    def report(self) -> dict[str, Any]:
        """The statistics as JSON values."""


class EntryType(Protocol):
    """A type of entries."""

    @property
    def name(self) -> str: ...

    def parse(self, value: object, param: str) -> object:
        """A record.

        Raises:
            InvalidInput: it is none; ``param`` is what the offending field is called, with this prefix.
        """

    def line(self, record: Any) -> str:
        """The record as the model reads it, without an end of line."""

    def statistics(self, windowed: bool) -> Statistics:
        """Statistics of no record yet.

        Args:
            windowed: whether records will be dropped.
        """
