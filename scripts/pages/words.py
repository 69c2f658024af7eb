"""JSON schema in words, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

Schema = Mapping[str, Any]

_NAMES = {"array": "list", "boolean": "true or false"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *cells)]


def code(value: Any) -> str:
    """A value as it would be written."""
    return f"`{value if isinstance(value, str) else orjson.dumps(value).decode()}`"


def kind(schema: Schema) -> str:
    """What a value is: ``list of [Slot](#slot)``."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(kind(option) for option in schema[key]))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    name = schema.get("type", "anything")
    if isinstance(name, list):
        return " or ".join(name)
    if name == "array" and schema.get("items"):
        return f"list of {kind(schema['items'])}"
    if name == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'])}"
    return str(_NAMES.get(name, name))


def bounds(schema: Schema) -> str:
    """What is allowed of it: ``1 to 64``; empty where everything is."""
    options = [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        return "; ".join(dict.fromkeys(filter(None, map(bounds, options))))
    found = [_range(schema.get("minimum"), schema.get("maximum"), schema.get("exclusiveMinimum"))]
    for least, most, unit in (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items")):
        if text := _range(schema.get(least), schema.get(most)):
            found.append(f"{text} {unit}")
    if "pattern" in schema:
        found.append(f"matches `{schema['pattern']}`")
    if isinstance(schema.get("items"), dict) and (each := bounds(schema["items"])):
        found.append(f"each {each}")
    return ", ".join(filter(None, found))


def _range(least: float | None, most: float | None, above: float | None = None) -> str:
    low = f"above {above:,}" if above is not None else "" if least is None else f"{least:,}"
    if most is None:
        return f"{low} or more" if low and above is None else low
    if above is not None:
        return f"{low}, at most {most:,}"
    return f"{low} to {most:,}" if low else f"at most {most:,}"
