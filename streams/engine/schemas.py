"""JSON schemas that generated text is held to: refused where they cannot be, and made such that small models finish.

What xgrammar does not enforce it ignores, so a schema must be looked through before a model is promised to obey it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from streams.engine.grammar import reason_of
from streams.errors import InvalidInput

# Compiling a grammar takes longer than linearly in the size of its schema; a hundred tools fit into this.
MAX_CHARACTERS = 32 * 1024
MAX_DEPTH = 64
MAX_OPTIONAL = 200
MAX_REPEATS = 10_000

# Keywords that restrict values and that xgrammar passes over.
_IGNORED = (
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies"),
    *("unevaluatedItems", "$dynamicRef", "$recursiveRef", "contains", "uniqueItems", "multipleOf"),
)
_TYPE_OF = {
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "object": (
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "minProperties",
        "maxProperties",
    ),
}
_FORMATS = frozenset(
    (
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid", "uri"),
        *("uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    )
)
_WHOLE = {"minimum": math.ceil, "maximum": math.floor, "exclusiveMinimum": math.floor, "exclusiveMaximum": math.ceil}
_BOUNDS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"))
_LOOKAROUND = ("(?=", "(?!", "(?<")
_ONE = ("items", "additionalProperties", "propertyNames", "not", "if", "then", "else", "contains")
_BRANCHES = ("anyOf", "oneOf", "allOf")
_LISTED = (*_BRANCHES, "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")


def enforceable(schema: Mapping[str, Any], param: str) -> dict[str, Any]:
    """A copy of a schema that xgrammar enforces to the letter.

    Args:
        schema: from a client.
        param: what to call it when it is refused.

    Raises:
        InvalidInput: it is no schema, no value can satisfy it, or it uses what cannot be enforced.
    """
    try:
        text = json.dumps(schema, allow_nan=False)
        copy: dict[str, Any] = json.loads(_enforceable(text, param))
    except RecursionError as exc:
        raise InvalidInput(f"The schema is nested more than {MAX_DEPTH} levels deep; flatten it.", param=param) from exc
    except ValueError as exc:
        raise InvalidInput("The schema holds numbers that JSON does not have.", param=param) from exc
    return copy


@lru_cache(maxsize=128)
def _enforceable(text: str, param: str) -> str:
    """The same on JSON text; remembered, for a standing question brings its schema with every batch."""
    copy = _parsed(text, param)
    for where, part in _subschemas(copy, ""):
        _settle(part)
        _refuse(part, copy, where, param)
    _refuse_unsupported(copy, param)
    _refuse_endless(copy, param)
    return json.dumps(copy)


def _parsed(text: str, param: str) -> dict[str, Any]:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(f"The schema has more than {MAX_CHARACTERS} characters; make it simpler.", param=param)
    try:
        copy: dict[str, Any] = json.loads(text)
        if _depth(copy) > MAX_DEPTH:
            raise InvalidInput(f"The schema is nested more than {MAX_DEPTH} levels deep; flatten it.", param=param)
        Draft202012Validator.check_schema(copy)
    except SchemaError as exc:
        raise InvalidInput(f"Not a JSON schema, at {_path(exc.absolute_path)}: {exc.message}", param=param) from exc
    return copy


def _settle(part: dict[str, Any]) -> None:
    """Say in a subschema what it leaves open or says by the way, in the terms that xgrammar enforces."""
    if part.get("uniqueItems") is False:
        del part["uniqueItems"]
    if "format" in part and ("minLength" in part or "maxLength" in part or part["format"] not in _FORMATS):
        del part["format"]  # a remark, as far as the standard goes
    if "type" not in part and not {"enum", "const", "$ref", *_BRANCHES} & part.keys():
        for name, keywords in _TYPE_OF.items():
            if any(keyword in part for keyword in keywords):
                part["type"] = name
    if part.get("type") == "array" and not {"items", "prefixItems"} & part.keys():
        part["items"] = {}
    if part.get("type") == "object":
        # A schema allows any others where it does not say; models would invent them without end.
        part.setdefault("additionalProperties", not {"properties", "patternProperties"} & part.keys())
    if part.get("type") == "integer":
        part |= {bound: rounded(part[bound]) for bound, rounded in _WHOLE.items() if bound in part}
    for branches in _BRANCHES:
        for branch in part.get(branches, ()):
            if isinstance(branch, dict) and "type" in part and not {"type", "$ref", *_BRANCHES} & branch.keys():
                branch["type"] = part["type"]


def _refuse(part: dict[str, Any], root: dict[str, Any], where: str, param: str) -> None:
    """Refuse what is wrong with one subschema by itself."""

    def refusal(keyword: str, reason: str = "cannot be enforced; leave it out") -> InvalidInput:
        return InvalidInput(f"`{keyword}` at {where or 'the root of the schema'} {reason}.", param=param)

    for keyword in _IGNORED:
        if keyword in part:
            raise refusal(keyword)
    for least, most in _BOUNDS:
        for keyword in (least, most):
            if part.get(keyword, 0) > MAX_REPEATS:
                raise refusal(keyword, f"is greater than {MAX_REPEATS}")
        if part.get(least, 0) > part.get(most, MAX_REPEATS):
            raise refusal(least, f"is greater than `{most}`")
    if any(mark in part.get("pattern", "") for mark in _LOOKAROUND):
        raise refusal("pattern", "looks ahead or behind, which cannot be enforced")
    missing = [name for name in part.get("required", ()) if name not in part.get("properties", {})]
    if missing:
        raise refusal("required", f"names {missing[0]!r}, which is not among the properties")
    reference = part.get("$ref")
    if reference is not None and _target(root, reference) is None:
        raise refusal("$ref", "points nowhere; only references into the same schema, such as #/$defs/x, are followed")
    if "oneOf" in part and not _disjoint([_resolved(branch, root) for branch in part["oneOf"]]):
        raise refusal("oneOf", "has branches that may hold at once; use anyOf")
    if len(part.get("properties", {}).keys() - set(part.get("required", ()))) > MAX_OPTIONAL:
        raise refusal("properties", f"has more than {MAX_OPTIONAL} optional ones")
    if {"$ref", *_BRANCHES} & part.keys():
        for keyword in ("enum", "const", *(keyword for keywords in _TYPE_OF.values() for keyword in keywords)):
            if keyword in part:
                raise refusal(keyword, f"stands beside {' or '.join(('$ref', *_BRANCHES))}; move it into the branches")
    allowed = part.get("enum", [part["const"]] if "const" in part else None)
    if allowed is not None:
        from jsonschema import Draft202012Validator

        scalar = ("type", *_TYPE_OF["number"], *_TYPE_OF["string"])
        others = Draft202012Validator({key: part[key] for key in scalar if key in part})
        fitting = [value for value in allowed if others.is_valid(value)]
        if not fitting:
            raise refusal("enum" if "enum" in part else "const", "has no value that fits what stands beside it")
        part.pop("const", None)
        part["enum"] = fitting


def _refuse_unsupported(schema: dict[str, Any], param: str) -> None:
    """Refuse what vLLM knows that xgrammar cannot do, and what xgrammar says itself."""
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features
    from xgrammar import Grammar

    if has_xgrammar_unsupported_json_features(schema):
        for where, part in reversed(list(_subschemas(schema, ""))):
            if has_xgrammar_unsupported_json_features(part):
                keyword = next(
                    (
                        key
                        for key in sorted(part, key=lambda key: key == "type")
                        if not has_xgrammar_unsupported_json_features({k: v for k, v in part.items() if k != key})
                    ),
                    "it",
                )
                value = f" {part[keyword]!r}" if keyword == "format" else ""
                raise InvalidInput(
                    f"`{keyword}`{value} at {where or 'the root of the schema'} cannot be enforced as it stands there; "
                    "leave it out.",
                    param=param,
                )
    try:
        Grammar.from_json_schema(json.dumps(schema))
    except Exception as exc:  # the library raises RuntimeError and its kin for anything it does not like
        raise InvalidInput(f"The schema cannot be enforced: {reason_of(exc)}", param=param) from exc


def _refuse_endless(schema: dict[str, Any], param: str) -> None:
    """Refuse a schema that only endless values satisfy, or none, since it contains itself."""
    references = {part["$ref"] for _, part in _subschemas(schema, "") if "$ref" in part}
    ending: set[str] = set()
    while found := {ref for ref in references - ending if _ends(_target(schema, ref), ending)}:
        ending |= found
    if not _ends(schema, ending):
        raise InvalidInput("The schema requires a value that contains itself without end.", param=param)


def _ends(schema: Any, ending: set[str]) -> bool:
    """Whether a finite value satisfies a schema, given the references that some finite value satisfies."""
    if not isinstance(schema, dict):
        return schema is not False
    if "$ref" in schema and schema["$ref"] not in ending:
        return False
    for either in ("anyOf", "oneOf"):
        if either in schema and not any(_ends(branch, ending) for branch in schema[either]):
            return False
    if not all(_ends(branch, ending) for branch in schema.get("allOf", ())):
        return False
    if schema.get("type") not in ("object", "array"):
        return True
    needed = [schema.get("properties", {}).get(name, True) for name in schema.get("required", ())]
    needed += schema.get("prefixItems", ())
    if schema.get("minItems", 0) > len(schema.get("prefixItems", ())):
        needed.append(schema.get("items", True))
    return all(_ends(part, ending) for part in needed)


def _subschemas(schema: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every subschema with its path, outer ones first."""
    if not isinstance(schema, dict):
        return
    yield where, schema
    for key in _ONE:
        yield from _subschemas(schema.get(key), f"{where}/{key}")
    for key in _LISTED:
        for i, part in enumerate(schema.get(key, ())):
            yield from _subschemas(part, f"{where}/{key}/{i}")
    for key in _NAMED:
        for name, part in schema.get(key, {}).items():
            yield from _subschemas(part, f"{where}/{key}/{name}")


def _target(root: dict[str, Any], reference: str) -> Any:
    """What a reference into the same schema points to; None for nothing."""
    if reference != "#" and not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[1:].split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found if isinstance(found, dict | bool) else None


def _resolved(schema: Any, root: dict[str, Any]) -> Any:
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = _target(root, schema["$ref"])
    return schema


def _disjoint(branches: list[Any]) -> bool:
    """Whether it is plain that no value satisfies two of these schemas: by type, or by a property with fixed values."""
    return all(_apart(a, b) for i, a in enumerate(branches) for b in branches[:i])


def _apart(a: Any, b: Any) -> bool:
    if not isinstance(a, dict) or not isinstance(b, dict):
        return a is False or b is False
    fixed = _values(a), _values(b)
    if fixed[0] is not None and fixed[1] is not None:
        return fixed[0].isdisjoint(fixed[1])
    kinds = _kinds(a), _kinds(b)
    if kinds[0] and kinds[1] and kinds[0].isdisjoint(kinds[1]):
        return True
    shared = set(a.get("required", ())) & set(b.get("required", ()))
    return any(
        _apart(a.get("properties", {}).get(name, True), b.get("properties", {}).get(name, True)) for name in shared
    )


def _values(schema: dict[str, Any]) -> set[str] | None:
    listed = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return None if listed is None else {json.dumps(value, sort_keys=True) for value in listed}


def _kinds(schema: dict[str, Any]) -> set[str]:
    kind = schema.get("type", [])
    kinds = {kind} if isinstance(kind, str) else set(kind)
    return kinds | {"number"} if "integer" in kinds else kinds


def _depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max((_depth(part) for part in parts), default=0)


def _path(steps: Any) -> str:
    return "/".join(("", *map(str, steps))) or "its root"
