"""What a constraint leaves open is bounded by the room there is."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from streams.engine.fitting import fitted

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "short": {"type": "string", "maxLength": 4},
        "long": {"type": "string", "minLength": 700},
        "count": {"type": "integer"},
        "least": {"type": "integer", "minimum": 10**17},
        "tags": {"type": "array", "items": {"type": "string"}},
        "many": {"type": "array", "items": {"type": "integer"}, "minItems": 30},
        "any": {},
        "others": {"type": "object", "additionalProperties": {"type": "string"}},
        "kind": {"enum": ["a", "b"]},
    },
    "required": ["title"],
}


def fit(schema: dict[str, Any], tokens: int) -> dict[str, Any]:
    return fitted(schema, tokens)


def test_what_has_a_bound_keeps_it_and_what_has_none_gets_one() -> None:
    of = fit(SCHEMA, 1000)["properties"]
    assert of["title"]["maxLength"] >= 8
    assert of["code"] == SCHEMA["properties"]["code"]  # type: ignore[index]
    assert of["short"]["maxLength"] == 4
    assert of["long"]["maxLength"] >= 700
    assert of["count"]["maximum"] == 2**53 - 1
    assert of["least"]["maximum"] > 10**17
    assert of["tags"]["maxItems"] >= 3
    assert of["tags"]["items"]["maxLength"] == of["title"]["maxLength"]
    assert of["many"]["maxItems"] >= 30
    assert of["others"]["maxProperties"] >= 3
    assert of["any"]["anyOf"]
    assert of["kind"] == {"enum": ["a", "b"]}


@pytest.mark.parametrize("tokens", [1, 64, 200, 1000, 8000, 100_000])
def test_what_fits_satisfies_the_schema_it_was_made_from(tokens: int) -> None:
    bounded = fit(SCHEMA, tokens)
    jsonschema.Draft202012Validator.check_schema(bounded)
    fits = {"title": "a", "any": {"x": [1]}, "tags": ["b"], "others": {"c": "d"}, "kind": "a"}
    jsonschema.validate(fits, bounded)
    jsonschema.validate(fits, SCHEMA)


def test_more_room_allows_more() -> None:
    longest = [fit(SCHEMA, tokens)["properties"]["title"]["maxLength"] for tokens in (100, 1000, 10_000, 100_000)]
    assert longest == sorted(longest)
    alone = {"type": "object", "properties": {"text": {"type": "string"}}}
    assert fit(alone, 8000)["properties"]["text"]["maxLength"] > 10_000, "a whole file fits into a long reply"


def test_a_schema_that_contains_itself_can_be_bounded() -> None:
    tree = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["name", "children"],
    }
    assert fit(tree, 500)["properties"]["children"]["maxItems"] >= 3


@pytest.mark.parametrize(("tokens", "calls"), [(50, 1), (200, 1), (300, 2), (5000, 8)])
def test_there_are_fewer_calls_where_there_is_less_room(tokens: int, calls: int) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    call = {
        "type": "tag",
        "begin": "<call>",
        "content": {"type": "json_schema", "json_schema": schema},
        "end": "</call>",
    }
    others = {"type": "repeat", "min": 0, "max": 7, "content": call}
    tag = {"type": "structural_tag", "format": {"type": "sequence", "elements": [call, others]}}
    limited = fitted(tag, tokens)
    first, rest = limited["format"]["elements"]
    assert rest["max"] == calls - 1
    assert first["content"] == rest["content"]["content"]
    assert first["content"]["json_schema"]["properties"]["text"]["maxLength"] < 2 * tokens / calls
    assert "maxLength" not in json.dumps(tag)


def test_plain_lists_of_calls_are_limited_too() -> None:
    calls = {"type": "array", "minItems": 1, "maxItems": 8, "items": {"type": "object", "properties": {"n": {}}}}
    assert fit(calls, 200)["maxItems"] == 1
