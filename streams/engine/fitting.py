"""Makes what a constraint leaves open small enough for the reply's room. Pure, no I/O.

A model that is not at home in a language of arguments rambles: it fills strings, lists and digits until the reply is
cut off, and half a call is worth nothing. So strings and lists without a bound of their own get one that follows from
``max_tokens``: a reply of some thousand tokens may hold a whole file, one of two hundred some short words. Strings with
a ``pattern`` or ``format``, and schemas that contain themselves, keep what they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

# Fewer characters come to a token where a model rambles than in prose.
_CHARACTERS_PER_TOKEN = 2
_TOKENS_PER_CALL = 128
_MIN_CHARACTERS = 8
_MIN_ITEMS = 3
_INTEGER = 2**53 - 1
_NUMBER_CHARACTERS = 16
_DEPTH = 12
_ANY_DEPTH = 2


def fitted(value: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
    """A constraint's value, bounded.

    Args:
        value: a JSON schema, or a structural tag.
        max_tokens: the room for everything it describes.
    """
    calls = max(1, max_tokens // _TOKENS_PER_CALL)
    if "format" in value and value.get("type") == "structural_tag":
        limited = _fewer(value["format"], calls)
        share = max_tokens // min(calls, _repeated(limited))
        return {**value, "format": _fit_tags(limited, share, 0)}
    if value.get("type") == "array":
        most = min(calls, value.get("maxItems", calls))
        value = {**value, "maxItems": max(most, value.get("minItems", 0))}
    bounded: dict[str, Any] = _Room(value, max_tokens).fit(dict(value))
    return bounded


def _fewer(node: Any, calls: int) -> Any:
    """A structural tag with at most so many calls."""
    if isinstance(node, list):
        return [_fewer(part, calls) for part in node]
    if not isinstance(node, dict) or node.get("type") == "json_schema":
        return node
    node = {key: _fewer(part, calls) for key, part in node.items()}
    return node | {"max": min(node["max"], calls - 1)} if node.get("type") == "repeat" else node


def _repeated(node: Any) -> int:
    """How many calls a structural tag allows."""
    if isinstance(node, list):
        return max((_repeated(part) for part in node), default=1)
    if not isinstance(node, dict) or node.get("type") == "json_schema":
        return 1
    return max((_repeated(part) for part in node.values()), default=1) + (
        node["max"] if node.get("type") == "repeat" else 0
    )


def _fit_tags(node: Any, tokens: int, markup: int) -> Any:
    if isinstance(node, list):
        return [_fit_tags(part, tokens, markup) for part in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") == "json_schema":
        schema = node["json_schema"]
        return node | {"json_schema": _Room(schema, tokens, markup).fit(schema)} if isinstance(schema, dict) else node
    markup += sum(len(node[key]) for key in ("begin", "end") if isinstance(node.get(key), str))
    return {key: _fit_tags(part, tokens, markup) for key, part in node.items()}


class _Room:
    """How long strings and lists of one schema may be."""

    def __init__(self, schema: Mapping[str, Any], tokens: int, markup: int = 0) -> None:
        """Share out the room.

        Args:
            schema: all of it.
            tokens: for a value of it.
            markup: characters around it.
        """
        self._root = schema
        characters = tokens * _CHARACTERS_PER_TOKEN - markup
        self.items = max(_MIN_ITEMS, isqrt(max(characters, 0)) // 3)
        fixed, strings = self._size(schema, 0)
        self.characters = _step(max(_MIN_CHARACTERS, (characters - fixed) // max(strings, 1)))

    def _size(self, schema: Any, depth: int) -> tuple[int, int]:
        """Characters of what is fixed in the longest value, and how many strings of any length it may have."""
        if not isinstance(schema, dict) or depth > _DEPTH:
            return 0, 0
        if not schema.keys() - {"title", "description", "default"}:
            return self._size(_any(self.items, 64, _ANY_DEPTH), depth + 1)
        if "$ref" in schema:
            target: Any = self._root
            for step in schema["$ref"].split("/")[1:]:
                target = target.get(step) if isinstance(target, dict) else None
            return self._size(target, depth + 1)
        if "enum" in schema or "const" in schema:
            return max(len(repr(value)) for value in schema.get("enum", [schema.get("const")])), 0
        branches = [self._size(b, depth + 1) for key in ("anyOf", "oneOf", "allOf") for b in schema.get(key, ())]
        kinds = schema.get("type", [])
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            branches.append(self._size_of(kind, schema, depth))
        return max((size for size, _ in branches), default=0), max((strings for _, strings in branches), default=0)

    def _size_of(self, kind: str, schema: dict[str, Any], depth: int) -> tuple[int, int]:
        if kind == "string":
            return (2, 1) if _open(schema) else (2 + schema.get("maxLength", 0), 0)
        if kind == "array":
            fixed, strings = self._size(schema.get("items", {}), depth + 1)
            count = schema.get("maxItems", max(self.items, schema.get("minItems", 0)))
            parts = [self._size(part, depth + 1) for part in schema.get("prefixItems", ())]
            return (
                2 + count * (fixed + 2) + sum(size + 2 for size, _ in parts),
                count * strings + sum(more for _, more in parts),
            )
        if kind == "object":
            parts = [self._size(part, depth + 1) for part in schema.get("properties", {}).values()]
            names = sum(len(name) + 6 for name in schema.get("properties", {}))
            if others := schema.get("additionalProperties"):
                fixed, strings = self._size(others if isinstance(others, dict) else {}, depth + 1)
                parts.append((self.items * (fixed + 6), self.items * (strings + 1)))
            return 2 + names + sum(size for size, _ in parts), sum(strings for _, strings in parts)
        return _NUMBER_CHARACTERS, 0

    def fit(self, schema: Any, depth: int = 0) -> Any:
        """A schema with bounds."""
        if schema is True or (isinstance(schema, dict) and not schema.keys() - {"title", "description", "default"}):
            return _any(self.items, self.characters, _ANY_DEPTH)
        if not isinstance(schema, dict) or "enum" in schema or "const" in schema:
            return schema
        fit = dict(schema)
        for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
            if key in fit:
                fit[key] = [self.fit(part) for part in fit[key]]
        for key in ("properties", "patternProperties", "$defs", "definitions"):
            if key in fit:
                fit[key] = {name: self.fit(part) for name, part in fit[key].items()}
        for key in ("items", "additionalProperties"):
            if fit.get(key) not in (None, False):
                fit[key] = self.fit(fit[key])
        kinds = fit.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if "string" in kinds and _open(fit):
            fit["maxLength"] = max(self.characters, fit.get("minLength", 0))
        if "array" in kinds and fit.get("items") is not False:
            fit.setdefault("maxItems", max(self.items, fit.get("minItems", 0)) + len(fit.get("prefixItems", ())))
        if "object" in kinds and fit.get("additionalProperties"):
            least = max(fit.get("minProperties", 0), len(fit.get("properties", {})))
            fit.setdefault("maxProperties", least + self.items)
        if "integer" in kinds or "number" in kinds:
            if not {"minimum", "exclusiveMinimum"} & fit.keys():
                fit["minimum"] = min(-_INTEGER, fit.get("maximum", fit.get("exclusiveMaximum", 0)) - 1)
            if not {"maximum", "exclusiveMaximum"} & fit.keys():
                fit["maximum"] = max(_INTEGER, fit.get("minimum", fit.get("exclusiveMinimum", 0)) + 1)
        return fit


def _open(schema: Mapping[str, Any]) -> bool:
    """Whether a string may be of any length."""
    return not {"maxLength", "pattern", "format"} & schema.keys()


def _any(items: int, characters: int, depth: int) -> dict[str, Any]:
    """Any value that is not large or deep."""
    text = {"type": "string", "maxLength": characters}
    number = {"type": "number", "minimum": -_INTEGER, "maximum": _INTEGER}
    kinds: list[dict[str, Any]] = [text, number, {"type": "boolean"}, {"type": "null"}]
    if depth:
        inner = _any(items, characters, depth - 1)
        kinds.append({"type": "array", "items": inner, "maxItems": items})
        kinds.append({"type": "object", "additionalProperties": inner, "maxProperties": items})
    return {"anyOf": kinds}


def _step(characters: int) -> int:
    """Round down to one of a few lengths, two to each power of two: a grammar takes time to compile for each."""
    power = 1 << (characters.bit_length() - 1)
    return power + power // 2 if characters >= power + power // 2 else power
