"""How answers look on a terminal, wherever they are shown. Pure, no I/O."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

_BAR_WIDTH = 16
_TEXT_LIMIT = 200


def printable(text: str) -> str:
    """One bounded line without control characters: what a model or a log says must not drive a terminal."""
    line = "".join(character if character.isprintable() else " " for character in text).strip()
    return line if len(line) <= _TEXT_LIMIT else line[: _TEXT_LIMIT - 1] + "…"


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
    value = printable(event["value"])
    return f"{clock}  v{event['data_version']:<4} {event['query']}  {value}  (confidence {event['confidence']:.2f})"


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
