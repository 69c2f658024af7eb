"""The page of all operations, from the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from scripts.pages.words import Schema, bounds, code, kind, table
from service.app import OPERATIONS
from service.openapi import GENERAL, build

_INTRODUCTION = """# API reference

Every path, field and status, as `/openapi.json` of a running server has them. The rules behind them are in [the session
API](api.md), [chat](chat.md) and [the old generation](legacy.md).

Bodies are JSON, or msgpack with `Content-Type: application/msgpack`; answers are msgpack with `Accept:
application/msgpack`. Where a key is needed, it is sent as `Authorization: Bearer KEY` or as `x-api-key: KEY`. Errors
are an [Error](#error), of `/v1/messages` a [MessagesError](#messageserror); [its codes](api.md#errors) say more than
the status.

These may happen wherever a key may be asked for, and are not repeated below:
"""


def page() -> str:
    """The page as Markdown."""
    document = build(OPERATIONS, version="")
    schemas = document["components"]["schemas"]
    general = table(("status", ""), [[str(status), meaning] for status, meaning in GENERAL.items()])
    lines = [_INTRODUCTION, *general, ""]
    operations = [(method, path, one) for path, item in document["paths"].items() for method, one in item.items()]
    for tag in document["tags"]:
        lines += [f"## {tag['name']}", ""]
        for method, path, operation in operations:
            if tag["name"] in operation["tags"]:
                lines += _operation(method, path, operation, schemas)
    lines += ["## Objects", ""]
    for name in sorted(_named(operations, schemas)):
        lines += _object(name, schemas[name])
    return "\n".join(lines)


def _operation(method: str, path: str, operation: Schema, schemas: Schema) -> Iterator[str]:
    yield from (f"### {operation['summary']}", "", f"`{method.upper()} {path}`", "")
    if "description" in operation:
        yield from (operation["description"], "")
    if parameters := operation["parameters"]:
        rows = [[code(one["name"]), one["in"], _kind(one["schema"]), one.get("description", "")] for one in parameters]
        yield from (*table(("parameter", "in", "value", "meaning"), rows), "")
    if name := _body(operation):
        yield from _fields(schemas[name], "field of the body")
    yield from (*table(("status", "answer"), _answers(operation)), "")


def _body(operation: Schema) -> str | None:
    content = operation.get("requestBody", {"content": {}})["content"]
    return content["application/json"]["schema"]["$ref"].rpartition("/")[2] if content else None


def _answers(operation: Schema) -> Iterator[list[str]]:
    for status, answer in operation["responses"].items():
        if answer["description"] == GENERAL.get(int(status)):
            continue
        content = answer.get("content", {}) if int(status) < 400 else {}
        kinds = [kind(one["schema"]) if one else code(name) for name, one in content.items() if "msgpack" not in name]
        yield [status, " or ".join(kinds) or answer["description"]]


def _object(name: str, schema: Schema) -> Iterator[str]:
    yield from (f"### {name}", "")
    if "description" in schema:
        yield from (schema["description"], "")
    yield from _fields(schema, "field")


def _fields(schema: Schema, title: str) -> Iterator[str]:
    properties = schema.get("properties")
    if not properties:
        yield from (f"{kind(schema).capitalize()}.", "")
        return
    required = schema.get("required", ())
    rows = [
        [code(name), _kind(item), _default(name, item, required), _meaning(item)] for name, item in properties.items()
    ]
    yield from (*table((title, "value", "if absent", "meaning"), rows), "")


def _kind(schema: Schema) -> str:
    return ", ".join(filter(None, (kind(schema), bounds(schema))))


def _default(name: str, schema: Schema, required: Sequence[str]) -> str:
    if name in required:
        return "required"
    return code(schema["default"]) if schema.get("default") is not None else ""


def _meaning(schema: Schema) -> str:
    text = str(schema.get("description", ""))
    inner = schema.get("properties", {})
    return text or ", ".join(f"{code(name)} ({_kind(item)})" for name, item in inner.items())


def _named(operations: Sequence[tuple[str, str, Schema]], schemas: Schema) -> set[str]:
    """The schemas that something on the page links to."""
    found = {"Error", "MessagesError"}
    bodies = [schemas[name] for _, _, operation in operations if (name := _body(operation))]
    waiting: list[Any] = [*bodies, *(operation["responses"] for _, _, operation in operations)]
    waiting += [operation["parameters"] for _, _, operation in operations]
    while waiting:
        for name in re.findall(r"#/components/schemas/(\w+)", str(waiting.pop())):
            if name not in found:
                found.add(name)
                waiting.append(schemas[name])
    return found
