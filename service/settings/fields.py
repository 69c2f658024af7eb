"""What the settings' fields have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, JsonValue

MIB = 1024 * 1024


def panel(name: str) -> Callable[..., Any]:
    """How the fields under one heading of ``--help`` are declared: default, description and bounds of each."""
    extra: dict[str, JsonValue] = {"panel": name}

    def setting(default: Any, description: str, **bounds: Any) -> Any:
        known = {"default_factory": default} if callable(default) else {"default": default}
        return Field(**known, description=description, json_schema_extra=extra, **bounds)

    return setting


def lower(value: object) -> object:
    """Text in lower case; anything else as it is."""
    return value.lower() if isinstance(value, str) else value


def split(value: object) -> object:
    """The parts of comma-separated text; anything else as it is."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value
