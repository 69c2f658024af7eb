"""What is promised of a schema holds for whatever a model says; the rest is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from xgrammar import CompiledGrammar, GrammarCompiler, GrammarMatcher, TokenizerInfo, VocabType, allocate_token_bitmask

from streams.engine.fitting import fitted
from streams.engine.grammar import corrected
from streams.engine.schemas import MAX_CHARACTERS, enforceable
from streams.errors import InvalidInput

VOCABULARY = [*(bytes([byte]) for byte in range(256)), b"</s>"]
END = 256
CLOSING = frozenset(b'"]}')
STRUCTURE = frozenset(b'",:[]{}0123456789')


@pytest.fixture(scope="module")
def compiler() -> GrammarCompiler:
    return GrammarCompiler(
        TokenizerInfo(VOCABULARY, vocab_type=VocabType.RAW, vocab_size=len(VOCABULARY), stop_token_ids=[END])
    )


def walk(compiled: CompiledGrammar, rng: random.Random, limit: int = 300) -> str | None:
    """What a model might say that knows nothing, a byte at a time; None if it comes to no end."""
    matcher, said = GrammarMatcher(compiled), b""
    mask = allocate_token_bitmask(1, len(VOCABULARY))
    for step in range(limit):
        matcher.fill_next_token_bitmask(mask, 0)
        words = mask[0].tolist()
        allowed = [i for i in range(len(VOCABULARY)) if words[i // 32] >> (i % 32) & 1]
        assert allowed, f"nothing may follow {said!r}"
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.5):
            return said.decode(errors="replace")
        closing = [i for i in allowed if i in CLOSING and step > 40]
        structure = [i for i in allowed if i in STRUCTURE and rng.random() < 0.7]
        token = rng.choice(closing or structure or [i for i in allowed if i != END])
        assert matcher.accept_token(token)
        said += bytes([token])
    return None


def obj(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), **more}


INT, TEXT = {"type": "integer"}, {"type": "string", "maxLength": 3}
ENFORCED: list[dict[str, Any]] = [
    {},
    {"type": "object"},
    {"type": "array"},
    {"type": ["string", "null", "integer"]},
    {"minimum": 3},
    {"maxLength": 2},
    {"minItems": 2, "maxItems": 3},
    {"properties": {"a": {"type": "null"}}, "required": ["a"]},
    {"type": "integer", "minimum": 0.5, "maximum": 9.5},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 5},
    {"type": "number", "minimum": -1.5, "maximum": 2.25},
    obj({"a": INT, "b": INT, "c": INT}, minProperties=2, maxProperties=2),
    obj({"a": INT}, additionalProperties={"type": "boolean"}),
    obj({"a": TEXT, "b": INT}, "b", additionalProperties=False),
    obj({"a": INT}, unevaluatedProperties=False),
    obj({'a"\\\n😀': {"const": '\x00"\\😀'}}, 'a"\\\n😀'),
    {"type": "object", "patternProperties": {"^x": INT}},
    {"type": "object", "propertyNames": {"pattern": "^[a-c]+$"}, "additionalProperties": INT},
    {"type": "string", "pattern": "^a|b$"},
    {"type": "string", "pattern": "^\\d{3}-\\w+$"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "password"},
    {"type": "string", "format": "uri", "maxLength": 5},
    {"type": "array", "prefixItems": [INT], "items": {"type": "null"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "uniqueItems": False, "items": {"type": "null"}},
    {"anyOf": [INT, {"type": "null"}]},
    {"type": "string", "anyOf": [{"maxLength": 1}, {"pattern": "^zz$"}]},
    {"oneOf": [INT, TEXT]},
    {"oneOf": [obj({"k": {"const": "a"}}, "k"), obj({"k": {"const": "b"}, "z": {"type": "null"}}, "k")]},
    {"allOf": [{"type": "integer", "minimum": 2}]},
    {"type": "integer", "enum": [1, "a"]},
    {"type": "integer", "minimum": 3, "enum": [1, 5]},
    {"const": {"a": [1, None]}},
    {"$ref": "#/$defs/x", "$defs": {"x": INT}},
    obj({"v": INT, "c": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2}}, "v", "c"),
]


@pytest.mark.parametrize("room", [None, 300], ids=["open", "fitted"])
@pytest.mark.parametrize("schema", ENFORCED, ids=json.dumps)
def test_whatever_is_said_is_valid(schema: dict[str, Any], room: int | None, compiler: GrammarCompiler) -> None:
    rng = random.Random(json.dumps(schema))
    enforced = enforceable(schema, "p")
    if room is not None:
        enforced = fitted(enforced, room)
    said = [text for _ in range(30) if (text := walk(compiled(compiler, enforced), rng)) is not None]
    assert len(said) > 20
    for text in said:
        jsonschema.validate(json.loads(text), schema)


def compiled(compiler: GrammarCompiler, schema: dict[str, Any]) -> CompiledGrammar:
    grammar = corrected("json", schema)
    if grammar is not None:
        return compiler.compile_grammar(grammar)
    return compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))


@pytest.mark.parametrize("bounds", [{}, {"maxLength": 8}, {"minLength": 1}])
def test_strings_hold_what_json_strings_may_hold(bounds: dict[str, int], compiler: GrammarCompiler) -> None:
    grammar = compiled(compiler, {"type": "string", **bounds})
    for text, fine in [('a"\\\n🚀', True), ("12345678", True), ("123456789", "maxLength" not in bounds)]:
        assert GrammarMatcher(grammar).accept_string(json.dumps(text, ensure_ascii=False)) is fine
    for raw in ("\t", "\x00", "\x1f", "\n"):
        assert not GrammarMatcher(grammar).accept_string(f'"a{raw}"')


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = INT
    for _ in range(levels):
        schema = obj({"a": schema}, "a")
    return schema


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "strong"}, "Not a JSON schema, at /type"),
    ({"properties": [1]}, "Not a JSON schema, at /properties"),
    ({"type": "number", "minimum": float("inf")}, "numbers that JSON does not have"),
    ({"type": "string", "pattern": "(["}, "/pattern"),
    ({"type": "string", "pattern": "^(?!a)[ab]$"}, "`pattern`"),
    ({"type": "string", "pattern": "(a)\\1"}, "Backreference"),
    ({"type": "string", "pattern": "^a+$", "maxLength": 3}, "`pattern`"),
    ({"type": "string", "minLength": 5, "maxLength": 3}, "`minLength`"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum greater than maximum"),
    ({"type": "integer", "maximum": 10**30}, "Integer exceeds"),
    ({"type": "array", "minItems": 10**6}, "`minItems`"),
    ({"type": "integer", "enum": ["a"]}, "`enum`"),
    ({"enum": []}, "`enum`"),
    (obj({"a": False}, "a"), "false"),
    (obj({"a": INT}, "a", "b"), "`required`.* 'b'"),
    (obj({"a": {"type": "array", "uniqueItems": True}}), "`uniqueItems` at /properties/a"),
    (obj({"a": INT}, dependentRequired={"a": ["b"]}), "`dependentRequired`"),
    ({"type": "integer", "multipleOf": 3}, "`multipleOf`"),
    ({"not": {"type": "string"}}, "`not`"),
    ({"if": {}, "then": {}}, "`if`|`then`"),
    ({"allOf": [INT, {"minimum": 3}]}, "`allOf`"),
    ({"oneOf": [INT, {"type": "number"}]}, "`oneOf`"),
    (obj({"a": INT}, anyOf=[{"required": ["a"]}, {}]), "beside"),
    ({"$ref": "#/$defs/no"}, "points nowhere"),
    ({"$ref": "https://example.com/schema"}, "points nowhere"),
    ({"$ref": "#"}, "without end"),
    (obj({"c": {"$ref": "#"}}, "c"), "without end"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}, "without end"),
    ({"enum": [f"value {i}" for i in range(MAX_CHARACTERS // 10)]}, "characters"),
    (obj({f"p{i}": INT for i in range(500)}), "optional"),
    (nested(60), "nested"),
    (nested(400), "nested"),
]


@pytest.mark.parametrize(("schema", "reason"), REFUSED, ids=[str(schema)[:60] for schema, _ in REFUSED])
def test_what_cannot_be_kept_is_not_promised(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        enforceable(schema, "response_format")
    assert refused.value.param == "response_format"


def test_the_client_s_schema_is_left_alone() -> None:
    schema = {"type": "object", "properties": {"a": {"const": 3}}}
    before = json.dumps(schema)
    enforceable(schema, "p")
    assert json.dumps(schema) == before
