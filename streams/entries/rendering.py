"""How values are written in an entry's line: short, exact, on one line."""

from __future__ import annotations

import json
from decimal import Decimal

# Longest text of one value in a line, in characters.
MAX_TEXT = 128

# Outside of these magnitudes the digits would be mostly zeros, and the exponent is shorter.
_SMALLEST, _LARGEST = 1e-7, 1e21


def number(value: float) -> str:
    """The shortest decimal that reads back as the same number: no trailing ``.0``, no ``-0``.

    At most 26 characters; an exponent only below 1e-7 and from 1e21 on.
    """
    text = repr(value or 0)
    if "e" in text and _SMALLEST <= abs(value) < _LARGEST:
        text = f"{Decimal(text):f}"
    return text.removesuffix(".0")


def word(value: str) -> str:
    """A name; in quotes where it could be taken for more than one, or for a timestamp."""
    if value.startswith("@") or any(char in " \"'" for char in value):
        return json.dumps(value, ensure_ascii=False)
    return value


def single_line(value: str) -> str:
    """A text with a space for every character that is not printable, cut at :data:`MAX_TEXT` characters."""
    cut = value if len(value) <= MAX_TEXT else value[: MAX_TEXT - 1] + "…"
    return cut if cut.isprintable() else "".join(char if char.isprintable() else " " for char in cut)
