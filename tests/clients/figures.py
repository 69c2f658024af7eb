"""What each type's statistics must say, computed anew from the entries themselves."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

Entries = Sequence[Mapping[str, Any]]


def alike(found: Any, expected: Any) -> bool:
    """Equal, but for the last bits of floats."""
    if isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(alike(found[name], expected[name]) for name in expected)
    if isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-12)
    return bool(found == expected)


def ohlcv(entries: Entries) -> dict[str, Any]:
    highs, lows = [entry["h"] for entry in entries], [entry["l"] for entry in entries]
    opened, closed = entries[0]["o"], entries[-1]["c"]
    return {
        "max_high": max(highs),
        "max_high_index": highs.index(max(highs)),
        "min_low": min(lows),
        "min_low_index": lows.index(min(lows)),
        "max_volume": max(entry["v"] for entry in entries),
        "first_open": opened,
        "last_close": closed,
        "avg_close": _mean(entry["c"] for entry in entries),
        "change": closed - opened,
        "change_pct": (closed - opened) / opened * 100,
    }


def iot(entries: Entries) -> dict[str, Any]:
    values = [entry["val"] for entry in entries]
    breaches = sum(entry["val"] < entry["lo"] or entry["val"] > entry["hi"] for entry in entries)
    return {
        "last_sensor": entries[-1]["sid"],
        "last_value": values[-1],
        "min_value": min(values),
        "max_value": max(values),
        "avg_value": _mean(values),
        "threshold_breaches": breaches,
        "breach_rate": breaches / len(entries),
    }


def spatial(entries: Entries) -> dict[str, Any]:
    places = [(entry["x"], entry["y"], entry["z"]) for entry in entries]
    turns = [min(abs(a["hdg"] - b["hdg"]), 360 - abs(a["hdg"] - b["hdg"])) for a, b in pairwise(entries)]
    return {
        "current_position": dict(zip("xyz", places[-1], strict=True)),
        "current_speed": entries[-1]["spd"],
        "current_heading": entries[-1]["hdg"],
        "total_distance": math.fsum(math.dist(a, b) for a, b in pairwise(places)),
        "max_speed": max(entry["spd"] for entry in entries),
        "avg_speed": _mean(entry["spd"] for entry in entries),
        "max_turn_rate": max(turns),
    }


def event(entries: Entries) -> dict[str, Any]:
    categories = Counter(entry["cat"] for entry in entries)
    top, times = categories.most_common(1)[0]
    return {
        "total_event_count": sum(entry["cnt"] for entry in entries),
        "max_severity": max(entry["sev"] for entry in entries),
        "critical_events": sum(entry["sev"] >= 5 for entry in entries),
        "unique_sources": len({entry["src"] for entry in entries}),
        "unique_categories": len(categories),
        "top_category": top,
        "top_category_count": times,
    }


def vitals(entries: Entries) -> dict[str, Any]:
    last = entries[-1]
    pressures = [(entry["bp_s"] + 2 * entry["bp_d"]) / 3 for entry in entries]
    return {
        "current": {
            "hr": last["hr"],
            "bp": f"{last['bp_s']:g}/{last['bp_d']:g}",
            "spo2": last["spo2"],
            "temp": last["temp"],
            "map": pressures[-1],
        },
        "avg_heart_rate": _mean(entry["hr"] for entry in entries),
        "avg_map": _mean(pressures),
        "min_spo2": min(entry["spo2"] for entry in entries),
        "max_temp": max(entry["temp"] for entry in entries),
        "alerts": {
            "tachycardia_episodes": _episodes(entries, lambda entry: entry["hr"] > 100),
            "bradycardia_episodes": _episodes(entries, lambda entry: entry["hr"] < 60),
            "hypoxia_episodes": _episodes(entries, lambda entry: entry["spo2"] < 90),
            "fever_episodes": _episodes(entries, lambda entry: entry["temp"] >= 38),
        },
    }


def _mean(values: Any) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _episodes(entries: Entries, holds: Callable[[Mapping[str, Any]], bool]) -> int:
    marks = "".join("x" if holds(entry) else " " for entry in entries)
    return len(marks.split())


OF: Mapping[str, Callable[[Entries], dict[str, Any]]] = {
    "ohlcv": ohlcv,
    "iot": iot,
    "spatial": spatial,
    "event": event,
    "vitals": vitals,
}
