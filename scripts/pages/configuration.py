"""The page of all settings, from their model."""

from __future__ import annotations

from pathlib import Path

from pydantic.fields import FieldInfo

from scripts.pages.words import Schema, bounds, table
from service.cli import peer
from service.settings import Settings, shown
from service.settings.fields import MIB

_INTRODUCTION = """# Configuration

Every setting of `askahead serve` is a flag and a variable of the environment; a flag beats the variable. A value out of
its bounds ends the server at its start with a sentence that names the setting. `askahead serve --help` shows the same.
`askahead engine` ([scaling](scaling.md)) takes the same settings.

A variable that is empty is as one that is not set. Lists are separated by commas.
"""


def page() -> str:
    """The page as Markdown."""
    properties = Settings.model_json_schema()["properties"]
    panels: dict[str, list[list[str]]] = {}
    for name, field in Settings.model_fields.items():
        panels.setdefault(shown.panel(field) or "", []).append(_row(name, field, properties[name]))
    lines = [_INTRODUCTION]
    for title, rows in panels.items():
        lines += [f"## {title}", "", *table(("flag, variable", "default", "value", "meaning"), rows), ""]
    return "\n".join(lines)


def _row(name: str, field: FieldInfo, schema: Schema) -> list[str]:
    names = [shown.flag(name), *peer.FLAGS.get(name, ()), shown.variable(name)]
    return ["<br>".join(f"`{one}`" for one in names), _default(field), _value(field, schema), field.description or ""]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Path):
        return f"`{value.name}` in the user's data directory (`~/.local/share` on Linux)"
    text = shown.default(field)
    if text == "unset":
        return text
    size = f" ({value // MIB} MiB)" if isinstance(value, int) and value >= MIB and value % MIB == 0 else ""
    return f"`{str(value).lower() if isinstance(value, bool) else text}`{size}"


def _value(field: FieldInfo, schema: Schema) -> str:
    kinds = shown.metavar(field)
    if "|" in kinds:
        return ", ".join(f"`{choice}`" for choice in kinds.split("|"))
    return ", ".join(filter(None, ({"INTEGER": "integer", "NUMBER": "number"}.get(kinds, "text"), bounds(schema))))
