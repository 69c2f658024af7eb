"""Events, each from a source, of a category, with a severity, and how often it occurred."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from streams.entries.accumulators import Highest, Names, Total
from streams.entries.base import BuiltIn, Entry, Int64, Name, Statistics
from streams.entries.rendering import word

# OCSF's severity_id: 1 informational, 2 low, 3 medium, 4 high, 5 critical, 6 fatal. Higher is worse, as the name of
# the statistic `max_severity` has it; syslog's severities (RFC 5424) run the other way.
CRITICAL = 5


class Event(Entry):
    """A severity of any scale where higher is worse, and a count of what this entry stands for."""

    src: Name
    sev: Int64
    cat: Name
    cnt: Annotated[Int64, Field(ge=0)]

    def fields(self) -> str:
        return f"{word(self.src)} severity {self.sev} {word(self.cat)} count {self.cnt}"


class EventStatistics(Statistics[Event]):
    """All but ``total_event_count`` count entries, whatever their ``cnt``."""

    def __init__(self, windowed: bool) -> None:
        super().__init__(windowed)
        self._events = self.each(Total(), lambda event: event.cnt)
        self._severest = self.each(Highest[int](windowed), lambda event: event.sev)
        self._critical = self.each(Total(), lambda event: event.sev >= CRITICAL)
        self._sources = self.each(Names(windowed), lambda event: event.src)
        self._categories = self.each(Names(windowed), lambda event: event.cat)

    def report(self) -> dict[str, Any]:
        category, entries = self._categories.commonest
        return {
            "count": self.count,
            "total_event_count": self._events.value,
            "max_severity": self._severest.value or 0,
            "critical_events": self._critical.value,
            "unique_sources": self._sources.distinct,
            "unique_categories": self._categories.distinct,
            "top_category": category,
            "top_category_count": entries,
        }


EVENT = BuiltIn("event", Event, EventStatistics)
