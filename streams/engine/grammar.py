"""Grammars of constraints, corrected where xgrammar's differ from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

# A string with minLength or maxLength may hold raw control characters there, which no JSON string may, and no escapes,
# so that neither a quote nor a line end can be said. (In ``\u`` escapes two may make one character: they stay out.)
_AS_IT_IS = r"([^\"\\\r\n])"
_AS_IT_SHOULD_BE = r'([^\0-\x1f\"\\\r\n]) | ("\\" [\"\\/bfnrt])'


def corrected(kind: Literal["json", "structural_tag"], value: Mapping[str, Any]) -> str | None:
    """The EBNF of a constraint whose own grammar would be wrong; None if it is right as it is.

    JSON is written as compactly as the engine is configured to have it written.

    Raises:
        Exception: whatever xgrammar raises for what it cannot enforce; see :func:`reason_of`.
    """
    from xgrammar import Grammar

    text = json.dumps(value)
    if kind == "structural_tag":
        grammar = Grammar.from_structural_tag(text)
    else:
        grammar = Grammar.from_json_schema(text, any_whitespace=False, separators=(",", ":"))
    written = str(grammar)
    return written.replace(_AS_IT_IS, _AS_IT_SHOULD_BE) if _AS_IT_IS in written else None


def reason_of(exc: Exception) -> str:
    """What xgrammar complains of, without where in its sources it does."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0].rpartition(": ")[2]
