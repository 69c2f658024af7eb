"""What the suites of the chat clients say and ask for."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

HEADER = "x-layerscale-session-id"
LINES = [f"{minute:02d}:00 boiler {70 + minute % 9}.5 C" for minute in range(40)]

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "symbol": {"type": "string", "enum": ["AAPL", "MSFT", "NVDA"]},
        "quantity": {"type": "integer", "minimum": 1, "maximum": 1000},
        "limit": {"type": "boolean"},
    },
    "required": ["symbol", "quantity", "limit"],
    "additionalProperties": False,
}
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
}

TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "order", "description": "Places an order.", "parameters": ORDER}},
    {"type": "function", "function": {"name": "weather", "description": "Looks up the weather.", "parameters": CITY}},
]
ANTHROPIC_TOOLS: list[dict[str, Any]] = [
    {"name": "order", "description": "Places an order.", "input_schema": ORDER},
    {"name": "weather", "description": "Looks up the weather.", "input_schema": CITY},
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def valid_order(arguments: str | dict[str, Any]) -> bool:
    """Whether a call's arguments are what the schema says. Raises jsonschema's error if not."""
    jsonschema.validate(json.loads(arguments) if isinstance(arguments, str) else arguments, ORDER)
    return True
