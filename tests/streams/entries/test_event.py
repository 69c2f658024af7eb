from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from streams.entries import BUILTIN
from streams.entries.accumulators import MAX_NAMES
from tests.streams.entries.kit import MOVES, NAMES, entries, replay

EVENT = BUILTIN["event"]
SEVERITIES = st.one_of(st.integers(0, 7), st.integers(-(2**63), 2**63 - 1))
COUNTS = st.one_of(st.integers(0, 9), st.integers(0, 2**63 - 1))
EVENTS = entries({"src": NAMES, "sev": SEVERITIES, "cat": NAMES, "cnt": COUNTS})


def naive(events: list[dict[str, Any]]) -> dict[str, Any]:
    category, entries = next(iter(Counter(event["cat"] for event in events).most_common(1)), ("", 0))
    return {
        "count": len(events),
        "total_event_count": min(sum(event["cnt"] for event in events), 2**63 - 1),
        "max_severity": max((event["sev"] for event in events), default=0),
        "critical_events": sum(event["sev"] >= 5 for event in events),
        "unique_sources": len({event["src"] for event in events}),
        "unique_categories": len({event["cat"] for event in events}),
        "top_category": category,
        "top_category_count": entries,
    }


@given(EVENTS, MOVES)
def test_statistics_are_those_of_the_list(events: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(EVENT, naive, events, moves)


def test_an_event_is_one_short_line() -> None:
    event = {"src": "fw 01", "sev": 3, "cat": "login_failed", "cnt": 5, "timestamp": 7}
    assert EVENT.line(EVENT.parse(event, "data.0")) == '@7 "fw 01" severity 3 login_failed count 5'


def test_a_stream_of_ever_new_names_is_counted_up_to_a_bound() -> None:
    statistics = EVENT.statistics(windowed=False)
    for number in range(MAX_NAMES + 5):
        name = str(number)
        statistics.add(EVENT.parse({"src": name, "sev": 1, "cat": name, "cnt": 1}, "data.0"))
    # Those that are known are counted on.
    statistics.add(EVENT.parse({"src": "7", "sev": 1, "cat": "7", "cnt": 1}, "data.0"))
    report = statistics.report()
    assert report["count"] == report["total_event_count"] == MAX_NAMES + 6
    assert report["unique_sources"] == report["unique_categories"] == MAX_NAMES
    assert (report["top_category"], report["top_category_count"]) == ("7", 2)


def test_in_a_window_every_name_is_counted() -> None:
    statistics = EVENT.statistics(windowed=True)
    for number in range(MAX_NAMES + 5):
        statistics.add(EVENT.parse({"src": str(number), "sev": 1, "cat": "a", "cnt": 1}, "data.0"))
    assert statistics.report()["unique_sources"] == MAX_NAMES + 5
