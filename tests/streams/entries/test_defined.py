from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.entries import EntryType, defined
from streams.entries.rendering import MAX_TEXT
from streams.entries.schema import MAX_ENTRY
from streams.entries.template import MAX_FIELDS, MAX_TEMPLATE
from streams.errors import InvalidInput
from tests.streams.entries.kit import MOVES, NUMBERS, attempt, average, exact, replay, total
from tests.streams.entries.test_entries import ANYTHING

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "host": {"type": "string", "minLength": 1},
        "cpu": {"$ref": "#/$defs/percent"},
        "requests": {"type": "integer"},
        "state": {"enum": ["up", "down"]},
        "more": {},
    },
    "required": ["host"],
    "additionalProperties": False,
    "$defs": {"percent": {"type": "number", "minimum": 0, "maximum": 100}},
}
FREE: dict[str, Any] = {"type": "object", "properties": {"a": {}, "b": {}, "text": {}}}


@pytest.fixture(scope="module")
def hosts() -> EntryType:
    return defined("hosts", SCHEMA, "{host} cpu={cpu:.1f}% requests={requests:,} {state} {more} {{}}")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ({"host": "a", "cpu": 3.25, "requests": 12500}, "a cpu=3.2% requests=12,500 - - {}"),
        ({"host": "a", "requests": 12500.0, "state": "up"}, "a cpu=-% requests=12,500 up - {}"),
        ({"host": "a\r\nb", "more": "c\u2028d"}, "a  b cpu=-% requests=- - c d {}"),
        ({"host": "a", "more": [True, None, {"b": "c\n"}]}, 'a cpu=-% requests=- - [true,null,{"b":"c\\n"}] {}'),
        ({"host": "a", "more": True}, "a cpu=-% requests=- - true {}"),
        ({"host": "a", "more": ""}, "a cpu=-% requests=- - - {}"),
        ({"host": "a", "more": 1e300}, "a cpu=-% requests=- - 1e+300 {}"),
        ({"host": "a", "more": "x" * 200}, f"a cpu=-% requests=- - {'x' * 127}… {{}}"),
    ],
)
def test_an_entry_is_the_line_of_its_template(hosts: EntryType, entry: dict[str, Any], line: str) -> None:
    assert hosts.line(hosts.parse(entry, "data.0")) == line


@pytest.mark.parametrize(
    ("entry", "param", "reason"),
    [
        ({"cpu": 1}, "data.3.host", "Field required"),
        ({"host": 1}, "data.3.host", '`type`: "string"'),
        ({"host": ""}, "data.3.host", "`minLength`: 1"),
        ({"host": "a", "cpu": 101}, "data.3.cpu", "`maximum`: 100"),
        ({"host": "a", "cpu": True}, "data.3.cpu", "`type`"),
        ({"host": "a", "requests": 1.5}, "data.3.requests", "`type`"),
        ({"host": "a", "state": "off"}, "data.3.state", "`enum`"),
        ({"host": "a", "disk": 1}, "data.3.disk", "there are host, cpu"),
        ({"host": "a", "more": 2**63}, "data.3", "64 bits"),
        ({"host": "a", "more": float("nan")}, "data.3", "finite"),
        ({"host": "a", "more": "x" * MAX_ENTRY}, "data.3", "make it smaller"),
        ({"host": "a", "more": {1}}, "data.3", "JSON"),
        ([], "data.3", "must be an object"),
        (None, "data.3", "must be an object"),
    ],
)
def test_an_entry_that_does_not_satisfy_the_schema_is_refused_by_field(
    hosts: EntryType, entry: Any, param: str, reason: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        hosts.parse(entry, "data.3")
    assert refused.value.param == param
    assert reason in refused.value.message


def of(value: Any, **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": value}, **root}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


# Each definition holds twice the next one: 2^20 parts in a few hundred characters.
DOUBLING = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(20)} | {"d20": {}}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ([], "must be an object"),
        ({}, "must be of the form"),
        ({"type": "object"}, "must be of the form"),
        ({"type": "array", "properties": {"a": {}}}, "must be of the form"),
        (of({"type": "nothing"}), "is no JSON schema, at properties.a.type"),
        (of({"minimum": "1"}), "is no JSON schema, at properties.a.minimum"),
        (of({"type": "string", "pattern": "(a+)+$"}), "`pattern` is not supported"),
        (of({"anyOf": [{"pattern": "(a+)+$"}]}), "`pattern` is not supported"),
        (of({}, patternProperties={"(a+)+$": {}}), "`patternProperties` is not supported"),
        (of({"items": {}}), "`items` is not supported"),
        (of({"properties": {}}), "`properties` is not supported"),
        (of({}, allOf=[{}]), "`allOf` is not supported"),
        (of({}, **{"$id": "http://x/"}), "`$id` is not supported"),
        (of({}, additionalProperties={}), "must be true or false"),
        (of({"$ref": "http://127.0.0.1/x"}), "`$ref` must name"),
        (of({"$ref": "file:///etc/passwd"}), "`$ref` must name"),
        (of({"$ref": "#"}), "`$ref` must name"),
        (of({"$ref": "#/$defs/b"}), "`$ref` must name"),
        (of({"$ref": "#/$defs/b"}, **{"$defs": {"b": {"$ref": "#/$defs/b"}}}), "make it simpler"),
        (of({"$ref": "#/$defs/d0"}, **{"$defs": DOUBLING}), "make it simpler"),
        (of(nested(9)), "make it simpler"),
        (of(nested(70)), "64 levels"),
        (of(nested(2000)), "64 levels"),
        (of({"enum": ["x" * 20_000]}), "make it smaller"),
        (of({"const": 2**70}), "64 bits"),
        ({"type": "object", "properties": {str(i): {} for i in range(65)}}, "leave some out"),
        ({"type": "object", "properties": {"a\nb": {}}}, "printable"),
        (
            {
                "type": "object",
                "properties": {str(i): {"$ref": "#/$defs/e"} for i in range(60)},
                "$defs": {"e": {"enum": list(range(1000))}},
            },
            "where references are followed",
        ),
    ],
)
def test_a_schema_that_could_cost_much_is_refused(schema: Any, reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        defined("x", schema, "{a}")
    assert refused.value.param == "type.schema"
    assert reason in refused.value.message


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("", "names no field"),
        ("a", "names no field"),
        ("{a", "expected '}'"),
        ("a}", "Single '}'"),
        ("{}", "none of the schema's properties"),
        ("{0}", "none of the schema's properties"),
        ("{c}", "none of the schema's properties"),
        ("{a.__class__}", "none of the schema's properties"),
        ("{a[0]}", "none of the schema's properties"),
        ("{a!r}", "conversions"),
        ("{a:{b}}", "format of {a}"),
        ("{a:d}", "format of {a}"),
        ("{a:*>3}", "format of {a}"),
        ("{a:33}", "format of {a}"),
        ("{a:.16f}", "format of {a}"),
        ("{a:999999999}", "format of {a}"),
        ("{a:.1}", "format of {a}"),
        ("{a}\n", "one line"),
        ("{a}\u2028", "one line"),
        ("{a}" + "x" * MAX_TEMPLATE, "make it shorter"),
        ("{a}" * (MAX_FIELDS + 1), "leave some out"),
    ],
)
def test_a_template_that_is_wrong_is_refused(template: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        defined("x", FREE, template, param="definition")
    assert refused.value.param == "definition.template"
    assert reason in refused.value.message


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "ä", "x" * 65])
def test_a_type_needs_a_plain_name(name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        defined(name, FREE, "{a}")
    assert refused.value.param == "type.name"


@pytest.mark.parametrize(
    ("spec", "value", "text"),
    [
        (".2f", 1.005, "1.00"),
        (".1%", 0.256, "25.6%"),
        ("+.1f", 2, "+2.0"),
        ("+", 2.0, "+2"),
        (",", 1234.5, "1,234.5"),
        (">8.1f", 2.25, "     2.2"),
        ("<4", "ab", "ab  "),
        ("^5", None, "  -  "),
        (".1f", "ab", "ab"),
        (".1f", True, "true"),
        (".15f", 1e308, "1e+308"),
        ("", 2.0, "2"),
    ],
)
def test_a_format_shapes_numbers_and_pads_all(spec: str, value: Any, text: str) -> None:
    kind = defined("x", FREE, f"[{{a:{spec}}}]")
    assert kind.line(kind.parse({"a": value}, "data.0")) == f"[{text}]"


@given(
    st.text(st.sampled_from("{}ab:.!<>^+,%f19[]_é\n"), max_size=30),
    st.dictionaries(st.sampled_from(["a", "b", "text"]) | st.text(), ANYTHING, max_size=4),
)
def test_any_template_over_any_entry_is_one_bounded_line_or_refused(template: str, entry: dict[str, Any]) -> None:
    kind = attempt(defined, "x", FREE, template)
    if isinstance(kind, InvalidInput):
        assert kind.param == "type.template"
        return
    record = attempt(kind.parse, entry, "data.0")
    if isinstance(record, InvalidInput):
        assert record.param == "data.0"
        return
    line = kind.line(record)
    assert line.isprintable()
    assert len(line) <= MAX_TEMPLATE + MAX_FIELDS * MAX_TEXT


KEYWORDS = ("type", "enum", "minimum", "multipleOf", "minLength", "not", "anyOf", "allOf", "$ref", "pattern", "format")


@given(
    st.dictionaries(
        st.sampled_from(KEYWORDS), ANYTHING | st.sampled_from(["string", 5, [{}], {}, "#/$defs/b"]), max_size=3
    ),
    ANYTHING,
)
def test_any_schema_takes_or_refuses_any_value(part: dict[str, Any], value: Any) -> None:
    kind = attempt(defined, "x", of(part, **{"$defs": {"b": {"type": "number"}}}), "{a}")
    if isinstance(kind, InvalidInput):
        assert kind.param == "type.schema"
        return
    record = attempt(kind.parse, {"a": value}, "data.0")
    if isinstance(record, InvalidInput):
        assert record.param in ("data.0", "data.0.a")
        return
    assert json.loads(json.dumps(record)) == record


def test_what_pydantic_generates_is_taken() -> None:
    from enum import Enum

    from pydantic import BaseModel

    class State(Enum):
        UP = "up"

    class Host(BaseModel):
        name: str
        state: State
        load: float | None = None

    kind = defined("hosts", Host.model_json_schema(), "{name} {state} {load}")
    assert kind.line(kind.parse({"name": "a", "state": "up", "load": None}, "data.0")) == "a up -"
    with pytest.raises(InvalidInput):
        kind.parse({"name": "a", "state": "down"}, "data.0")


def naive(entries: list[dict[str, Any]]) -> dict[str, Any]:
    fields = {}
    for name in ("a", "b", "text"):
        values = [value for entry in entries if isinstance(value := entry.get(name), int | float)]
        if values:
            fields[name] = {
                "last": values[-1],
                "min": min(values),
                "max": max(values),
                "avg": average(values),
                "sum": exact(total(values)),
            }
    return {"count": len(entries), "fields": fields}


@given(
    st.lists(st.fixed_dictionaries({}, optional={"a": NUMBERS, "b": NUMBERS | st.none(), "text": st.just("x")})), MOVES
)
def test_statistics_are_those_of_the_list(entries: list[dict[str, Any]], moves: list[bool]) -> None:
    replay(defined("x", FREE, "{a}"), naive, entries, moves)
