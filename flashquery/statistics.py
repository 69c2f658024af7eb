"""Reports of a session's statistics, as conditions and questions use them. Pure, no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flashquery.conditions import Scalar
from streams.tally import Over

# Characters. What is put before a question repeats what producers say, and types of their own name the figures.
_LONGEST_LINE = 800
_LONGEST_TEXT = 64
# Above the question there may also be frozen entries, which a window's statistics do not count.
_TITLES: Mapping[Over, str] = {"window": "Statistics of the latest entries", "stream": "Statistics of the whole stream"}


def flat(report: Mapping[str, Any]) -> dict[str, Scalar]:
    """A report's numbers and texts by dotted names such as ``alerts.fever_episodes``, without what has no value."""
    return dict(_flat(report, ""))


def _flat(report: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Scalar]]:
    for name, value in report.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, int | float | str):
            yield prefix + name, value


def line(values: Mapping[str, Scalar], over: Over) -> str:
    """The statistics as one line, to be read before a question; those that would make it too long are left out.

    Args:
        values: the statistics.
        over: what they cover: entries that may leave through the window, without what was frozen; or all ever read.
    """
    shown, length = [], 0
    for name, value in values.items():
        figure = f"{name if name.isprintable() else _quoted(name)} {_shown(value)}"
        length += len(figure)
        if length > _LONGEST_LINE:
            break
        shown.append(figure)
    return f"{_TITLES[over]}: {', '.join(shown)}\n"


def _shown(value: Scalar) -> str:
    if isinstance(value, str):
        return _quoted(value[:_LONGEST_TEXT])
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=not text.isprintable())
