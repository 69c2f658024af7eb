"""Pages that are made from the code are those of this code, and leave nothing out."""

from __future__ import annotations

import pytest

from scripts.pages.made import DOCS, PAGES
from scripts.pages.words import bounds, kind, table
from service.app import OPERATIONS
from service.openapi import build
from service.settings import Settings, shown


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text() == PAGES[name](), "run: python -m scripts.pages"


def test_every_setting_is_on_the_page() -> None:
    page = PAGES["configuration.md"]()
    for name, field in Settings.model_fields.items():
        assert f"`{shown.flag(name)}`" in page
        assert f"`{shown.variable(name)}`" in page
        assert str(field.description) in page


def test_every_operation_is_on_the_page_with_its_fields_and_statuses() -> None:
    page = PAGES["reference.md"]()
    document = build(OPERATIONS, version="")
    for operation in OPERATIONS:
        (section,) = (part for part in page.split("\n### ") if f"`{operation.method} {operation.template}`" in part)
        for status in operation.statuses:
            assert f"\n| {status} | " in section
        told = document["paths"][operation.template][operation.method.lower()]
        names = [parameter["name"] for parameter in told["parameters"]]
        if operation.request is not None:
            name = told["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
            names += document["components"]["schemas"][name]["properties"]
        for name in names:
            assert f"\n| `{name}` | " in section


def test_what_is_linked_to_is_on_the_page() -> None:
    page = PAGES["reference.md"]()
    objects = {part.partition("\n")[0].lower() for part in page.partition("## Objects")[2].split("\n### ")}
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked == objects - {""}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 2048}, "integer, 1 to 2,048"),
        ({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "null"}]}, "number or null, above 0"),
        ({"type": "array", "items": {"$ref": "#/x/Slot"}, "maxItems": 4}, "list of [Slot](#slot), at most 4 items"),
        ({"type": "array", "items": {"type": "string", "minLength": 1}}, "list of string, each 1 or more characters"),
        ({"enum": ["a", 1]}, "`a`, `1`"),
        ({"const": True}, "`true`"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
        ({}, "anything"),
    ],
)
def test_a_schema_in_words(schema: dict[str, object], words: str) -> None:
    assert ", ".join(filter(None, (kind(schema), bounds(schema)))) == words


def test_a_cell_does_not_end_its_row() -> None:
    assert table(("a", "b"), [["x|y", "one\ntwo"]])[-1] == "| x\\|y | one two |"
