from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel, Field

from service.app import OPERATIONS as OWN
from service.bodies import Strict
from service.openapi import Operation, add_routes, build
from tests.service.edge import edge_app, ok, serving


class Part(Strict):
    size: int = Field(ge=1, description="Bytes.")


class Create(Strict):
    name: str
    parts: list[Part] = Field(default_factory=list)


class Listing(Strict):
    limit: int = Field(default=10, description="Most to list.")


class Thing(BaseModel):
    id: str
    parts: list[Part]


GENERAL = {"401", "403", "429", "503"}
THINGS = (
    Operation(
        method="POST",
        path="/v1/things",
        handler=ok,
        tag="Things",
        summary="Create a thing",
        request=Create,
        response=Thing,
        headers={"x-place": "Where to put it."},
        statuses={409: "It exists", 201: "Created"},
    ),
    Operation(method="GET", path="/v1/things", handler=ok, tag="Things", summary="List things", query=Listing),
    Operation(method="GET", path="/v1/things/{id:.+}/events", handler=ok, tag="Things", summary="Events", streams=True),
    Operation(
        method="POST",
        path="/v1/messages",
        handler=ok,
        tag="Chat",
        summary="Message",
        content_types=("text/event-stream",),
    ),
)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


@pytest.mark.parametrize("operations", [THINGS, OWN], ids=["things", "own"])
def test_the_document_is_closed_and_consistent(operations: tuple[Operation, ...]) -> None:
    document = build(operations, version="1.2.3")
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"
    for reference in _references(document):
        name = reference.removeprefix("#/components/schemas/")
        assert name in document["components"]["schemas"], reference
    # Models of one name are told apart by their modules, which are nobody's business.
    assert not [name for name in document["components"]["schemas"] if "__" in name]
    assert "$defs" not in str(document)
    ids = [item["operationId"] for path in document["paths"].values() for item in path.values()]
    assert len(ids) == len(set(ids)) == len(operations)
    for path, item in document["paths"].items():
        for operation in item.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"]
            assert set(operation["tags"]) <= {tag["name"] for tag in document["tags"]}


def test_bodies_come_in_both_spellings() -> None:
    operation = build(THINGS, version="1")["paths"]["/v1/things"]["post"]
    assert operation["requestBody"]["required"] is True
    schema = {"$ref": "#/components/schemas/Create"}
    assert operation["requestBody"]["content"] == {
        "application/json": {"schema": schema},
        "application/msgpack": {"schema": schema},
    }
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "application/msgpack"}


def test_errors_have_the_envelope_of_their_path() -> None:
    paths = build(THINGS, version="1")["paths"]
    things, messages = paths["/v1/things"]["post"]["responses"], paths["/v1/messages"]["post"]["responses"]
    assert things["409"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
    assert "content" not in things["201"]
    assert messages["401"]["content"]["application/json"]["schema"]["$ref"].endswith("/MessagesError")
    assert set(messages["200"]["content"]) == {"text/event-stream"}


def test_queries_headers_and_regular_expressions_become_parameters() -> None:
    paths = build(THINGS, version="1")["paths"]
    (place,) = paths["/v1/things"]["post"]["parameters"]
    assert (place["name"], place["in"], place["required"]) == ("x-place", "header", False)
    assert place["description"] == "Where to put it."
    (limit,) = paths["/v1/things"]["get"]["parameters"]
    assert (limit["name"], limit["in"], limit["required"]) == ("limit", "query", False)
    assert limit["description"] == "Most to list."
    assert limit["schema"]["default"] == 10
    assert "/v1/things/{id}/events" in paths


def test_an_upgrade_has_no_other_success() -> None:
    socket = Operation(
        method="GET", path="/ws", handler=ok, tag="T", summary="Socket", streams=True, statuses={101: "Switching"}
    )
    responses = build((socket,), version="1")["paths"]["/ws"]["get"]["responses"]
    assert set(responses) == {"101", *GENERAL}


def test_what_every_operation_of_a_kind_may_be_refused_with_is_said() -> None:
    paths = build(THINGS, version="1")["paths"]
    create, listing = paths["/v1/things"]["post"]["responses"], paths["/v1/things"]["get"]["responses"]
    assert set(create) == {"200", "201", "400", "408", "409", "413", *GENERAL}
    assert set(listing) == {"200", "400", *GENERAL}
    assert set(paths["/v1/things/{id}/events"]["get"]["responses"]) == {"200", "400", *GENERAL}
    health = build(OWN, version="1")["paths"]["/health"]["get"]["responses"]
    assert "401" not in health


def test_open_operations_ask_for_no_key() -> None:
    document = build(OWN, version="1")
    assert document["paths"]["/health"]["get"]["security"] == []
    assert "security" not in document["paths"]["/metrics"]["get"]
    assert {name for entry in document["security"] for name in entry} == set(document["components"]["securitySchemes"])


def test_one_operation_per_method_and_path() -> None:
    with pytest.raises(ValueError, match="POST /v1/things is defined twice"):
        build((THINGS[0], THINGS[0]), version="1")


async def test_every_operation_is_routed() -> None:
    app = edge_app([])
    add_routes(app, THINGS)
    async with serving(app) as client:
        assert (await client.post("/v1/things", json={})).status == 200
        assert (await client.get("/v1/things")).status == 200
        assert (await client.head("/v1/things")).status == 200
        assert (await client.get("/v1/things/a/b/events")).status == 200
        # A stream would never end, and HEAD has no use for it.
        assert (await client.head("/v1/things/a/events")).status == 405


@pytest.mark.parametrize("operations", [THINGS, OWN], ids=["things", "own"])
def test_routes_are_what_the_document_says(operations: tuple[Operation, ...]) -> None:
    app = web.Application()
    add_routes(app, operations)
    routed = {resource.canonical for resource in app.router.resources()}
    assert routed == set(build(operations, version="1")["paths"])
