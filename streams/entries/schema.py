"""JSON schemas of user-defined entries: flat objects, checked in time linear in their size.

An entry is validated in the event loop, with every push; so there is nothing in a schema that could take long: no
regular expressions, no recursion, and nothing that looks inside of arrays and objects.
"""

from __future__ import annotations

import json
from typing import Any

from streams.entries.rendering import MAX_TEXT
from streams.errors import InvalidInput, short

# Characters of a schema, and of an entry, as JSON.
MAX_SCHEMA = 16 * 1024
MAX_ENTRY = 16 * 1024
MAX_PROPERTIES = 64
# Subschemas once references are followed, and how deeply they are nested.
MAX_PARTS = 256
MAX_DEPTH = 8
# Nested arrays and objects of a schema, and of an entry; msgpack keeps a few hundred.
MAX_LEVELS = 64

_REMARKS = frozenset(("$schema", "$comment", "title", "description", "default", "examples", "deprecated"))
_OF_ENTRY = _REMARKS | {"type", "properties", "required", "additionalProperties", "$defs"}
_BRANCHES = ("anyOf", "oneOf", "allOf")
_OF_VALUE = _REMARKS | {
    *("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "not", "$ref", *_BRANCHES),
    "format",  # a remark as well, as far as the standard goes
}
_DEFINITION = "#/$defs/"


class EntrySchema:
    """A checked schema.

    Args:
        schema: from a client: ``{"type": "object", "properties": {...}}``, in draft 2020-12.
        param: what to call it when it is refused.

    Raises:
        InvalidInput: it is no JSON schema of a flat object, or too large.
    """

    def __init__(self, schema: object, param: str) -> None:
        from jsonschema import Draft202012Validator

        copy = _json_object(schema, MAX_SCHEMA, param)
        _check(copy, param)
        properties = copy.get("properties", {})
        if copy.get("type") != "object" or not properties:
            raise InvalidInput(f'{param}: must be of the form {{"type": "object", "properties": {{...}}}}', param=param)
        _refuse_others(copy, _OF_ENTRY, param)
        if not isinstance(copy.get("additionalProperties", True), bool):
            raise InvalidInput(f"{param}: `additionalProperties` must be true or false", param=param)
        if len(properties) > MAX_PROPERTIES:
            raise InvalidInput(f"{param}: has more than {MAX_PROPERTIES} properties; leave some out", param=param)
        for name in properties:
            if not 0 < len(name) <= MAX_TEXT or not name.isprintable():
                raise InvalidInput(
                    f"{param}: names of properties must be 1 to {MAX_TEXT} printable characters on one line",
                    param=param,
                )
        inlined = _Inlined(copy.pop("$defs", {}), param)
        copy["properties"] = {name: inlined.part(part, 0) for name, part in properties.items()}
        if len(json.dumps(copy)) > MAX_SCHEMA:
            raise InvalidInput(
                f"{param}: has more than {MAX_SCHEMA} characters where references are followed; make it simpler",
                param=param,
            )
        self.names = tuple(properties)
        self._validator = Draft202012Validator(copy)

    @property
    def value(self) -> dict[str, Any]:
        """The schema itself, with its references followed."""
        schema: dict[str, Any] = self._validator.schema
        return schema

    def parse(self, value: object, param: str) -> dict[str, Any]:
        """A validated copy of an entry.

        Raises:
            InvalidInput: it does not satisfy the schema, is too large, or has integers beyond 64 bits.
        """
        record = _json_object(value, MAX_ENTRY, param)
        error = next(self._validator.iter_errors(record), None)
        if error is not None:
            raise self._refusal(error, record, param)
        return record

    def _refusal(self, error: Any, record: dict[str, Any], param: str) -> InvalidInput:
        if error.validator == "additionalProperties":
            path = f"{param}.{short(next(name for name in record if name not in self.names))}"
            return InvalidInput(
                f"`{path}` is no field of this type; there are {short(', '.join(self.names))}", param=path
            )
        if error.validator == "required":
            path = f"{param}.{short(next(name for name in error.validator_value if name not in record))}"
            return InvalidInput(f"{path}: Field required", param=path)
        path = ".".join((param, *map(str, error.absolute_path)))
        if error.validator is None:
            return InvalidInput(f"{path}: must be left out", param=path)
        wanted = short(json.dumps(error.validator_value, ensure_ascii=False))
        return InvalidInput(f"{path}: Input should satisfy `{error.validator}`: {wanted}", param=path)


class _Inlined:
    """Puts definitions in the place of references, so that nothing is found out about their cost later."""

    def __init__(self, definitions: dict[str, Any], param: str) -> None:
        self._definitions = definitions
        self._param = param
        self._parts = 0

    def part(self, part: Any, depth: int) -> Any:
        """A copy of a subschema of one value without references."""
        self._parts += 1
        if depth > MAX_DEPTH or self._parts > MAX_PARTS:
            raise InvalidInput(
                f"{self._param}: has more than {MAX_PARTS} parts, or more than {MAX_DEPTH} levels, once references "
                "are followed; make it simpler",
                param=self._param,
            )
        if isinstance(part, bool):
            return part
        _refuse_others(part, _OF_VALUE, self._param)
        copy = dict(part)
        for keyword in _BRANCHES:
            if keyword in copy:
                copy[keyword] = [self.part(branch, depth + 1) for branch in copy[keyword]]
        if "not" in copy:
            copy["not"] = self.part(copy["not"], depth + 1)
        if "$ref" in copy:
            copy["allOf"] = [*copy.get("allOf", ()), self.part(self._definition(copy.pop("$ref")), depth + 1)]
        return copy

    def _definition(self, reference: str) -> Any:
        name = reference.removeprefix(_DEFINITION)
        if not reference.startswith(_DEFINITION) or name not in self._definitions:
            raise InvalidInput(
                f"{self._param}: `$ref` must name one of the schema's own definitions, such as {_DEFINITION}x",
                param=self._param,
            )
        return self._definitions[name]


def _check(schema: dict[str, Any], param: str) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as exc:
        path = short(".".join(map(str, exc.absolute_path)))
        raise InvalidInput(f"{param}: is no JSON schema, at {path or 'its root'}", param=param) from None
    except RecursionError:
        raise InvalidInput(f"{param}: is nested too deeply; flatten it", param=param) from None


def _refuse_others(part: dict[str, Any], allowed: frozenset[str], param: str) -> None:
    for keyword in part:
        if keyword not in allowed:
            raise InvalidInput(
                f"{param}: `{short(keyword)}` is not supported: an entry is a flat object, and its values are checked "
                "by type, range, length and choices; leave it out",
                param=param,
            )


def _json_object(value: object, limit: int, param: str) -> dict[str, Any]:
    """A copy of an object of JSON's types."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{param}: must be an object", param=param)
    try:
        text = json.dumps(value, allow_nan=False)
        if len(text) > limit:
            raise InvalidInput(f"{param}: has more than {limit} characters as JSON; make it smaller", param=param)
        copy: dict[str, Any] = json.loads(text, parse_int=_int64)
        _require_packable(copy)
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput(
            f"{param}: must be of JSON's types, with finite numbers, integers of 64 bits, valid Unicode, and at most "
            f"{MAX_LEVELS} levels",
            param=param,
        ) from None
    return copy


def _require_packable(value: Any, levels: int = MAX_LEVELS) -> None:
    """Refuse what msgpack cannot keep, although JSON can: half of a surrogate pair, and deep nesting."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not levels:
            raise ValueError("nested too deeply")
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            _require_packable(inner, levels - 1)


def _int64(digits: str) -> int:
    value = int(digits)
    if not -(2**63) <= value < 2**63:
        raise ValueError("beyond 64 bits")
    return value
