"""How answers look on a terminal, wherever they are shown. All but printing is pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 16
_TEXT_LIMIT = 200


def printable(text: str) -> str:
    """One bounded line without control characters: what a model or a log says must not drive a terminal."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"


def harmless(text: str) -> str:
    """Text with its lines and tabs, and no other control characters."""
    return "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)


def print_json(value: object) -> None:
    """JSON for programs, with indentation for people who look."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(), flush=True)


def since(seconds: float) -> str:
    """How long ago, in the largest unit that says something."""
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def clock(seconds: float) -> str:
    """A time, in Unix seconds, as this machine's clock shows it."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def table(texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table: columns of text, then narrow ones with what is aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in texts:
        made.add_column(title, overflow="fold")
    for title in numbers:
        made.add_column(title, justify="right", no_wrap=True)
    return made


def freshness(fresh: bool) -> Text:
    """Whether an answer is of the present version."""
    return Text("●", style="green") if fresh else Text("○", style="yellow")


@dataclass(frozen=True, slots=True)
class Shown:
    """The latest answer to a question.

    Attributes:
        value: its text, safe to print: one line without control characters.
        confidence: logit gap, in nats.
        version: data version it was computed over.
        arrived: clock reading when it came, in seconds.
        shares: each choice's share of what the model believes of all choices, 0 to 1; empty without choices.
    """

    value: str
    confidence: float
    version: int
    arrived: float
    shares: Mapping[str, float]

    @classmethod
    def of(cls, event: Mapping[str, Any], now: float) -> Shown:
        """From a ``flash_ready`` event, or a Flash Query with an answer, that came just now."""
        return cls(
            value=printable(event["value"]),
            confidence=event["confidence"],
            version=event["data_version"],
            arrived=now,
            shares=_shares(event.get("probabilities")),
        )


def answer_cell(shown: Shown) -> RenderableType:
    """An answer as a table shows it: its text, or a bar for each choice."""
    if not shown.shares:
        return Text(shown.value, style="bold")
    bars = Table.grid(padding=(0, 1))
    for label, (choice, share) in zip(_labels(list(shown.shares)), shown.shares.items(), strict=True):
        style = "bold green" if choice == shown.value else "dim"
        filled = round(share * _BAR_WIDTH)
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        bars.add_row(*(Text(cell, style=style) for cell in (printable(label), bar, f"{share:4.0%}")))
    return bars


def change_line(event: Mapping[str, Any], clock: str) -> str:
    """A changed answer as one line of plain text.

    Args:
        event: the ``flash_ready`` event.
        clock: the time of day.
    """
    query, value = printable(event["query"]), printable(event["value"])
    return f"{clock}  v{event['data_version']:<4} {query}  {value}  (confidence {event['confidence']:.2f})"


def _labels(choices: Sequence[str]) -> list[str]:
    """The choices without the words that all of them begin with: beside a bar, what tells them apart is enough."""
    words = [choice.split(" ") for choice in choices]
    same = 0
    while all(len(each) > same + 1 and each[same] == words[0][same] for each in words):
        same += 1
    return [" ".join(each[same:]) for each in words]


def _shares(probabilities: Mapping[str, float] | None) -> dict[str, float]:
    total = math.fsum((probabilities or {}).values())
    return {choice: value / total for choice, value in (probabilities or {}).items()} if total else {}
