"""The table of operations, and the OpenAPI 3.1 document made from it.

Each API folder exports its ``OPERATIONS``; routes, document and documentation page all come from those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.access.guard import guarded
from service.peers import passed_on

_REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_BODY_TYPES = ("application/json", "application/msgpack")

_ERROR_SCHEMAS: dict[str, Any] = {
    "Error": {
        "type": "object",
        "description": "What went wrong, and what to do next.",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"], "description": "The offending field."},
                    "code": {"type": "string", "description": "Stable; match on this."},
                },
            }
        },
    },
    "MessagesError": {
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
            },
            "request_id": {"type": "string"},
        },
    },
}

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}


GENERAL = {
    401: "No key, or a wrong one.",
    403: "The key is limited to sessions whose ids start with its prefix, or the page's origin is not allowed.",
    429: "Too many requests, or too many at once.",
    503: "The server is too busy or not ready, or the engine, its memory or the store is not available.",
}
"""What may happen wherever a key may be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing a client can do.

    Attributes:
        method: HTTP method, upper case.
        path: route in aiohttp's syntax; ``{name:regex}`` becomes ``{name}`` in the document.
        handler: serves it.
        tag: the heading it belongs under.
        summary: one line.
        description: more, in Markdown.
        request: model of the body.
        response: model of the answer with status 200.
        query: model of the query string.
        headers: headers it reads, all optional, and what each is for.
        statuses: further statuses and when they occur, beside those that every operation with a body, with a query
            string or behind a key has.
        content_types: what it answers with beside, or without a ``response`` model instead of, JSON and msgpack;
            such as ``text/event-stream``.
        streams: the answer has no end of its own, so ``HEAD`` is not offered.
        needs_key: False where no key is ever asked for; nor is there any limit.
        tells_all: what it tells concerns all sessions, so keys that are limited to some are refused.
        anywhere: any server answers for any session; otherwise a request is passed on to the session's owner.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    description: str = ""
    request: type[BaseModel] | None = None
    response: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    statuses: Mapping[int, str] = field(default_factory=dict)
    content_types: tuple[str, ...] = ()
    streams: bool = False
    needs_key: bool = True
    anywhere: bool = False
    tells_all: bool = False

    @property
    def waits(self) -> bool:
        """Whether a request may ask to wait for what happens (a long poll)."""
        return self.query is not None and "wait" in self.query.model_fields

    @property
    def template(self) -> str:
        """The path without regular expressions."""
        return _PARAMETER.sub(r"{\1}", self.path)


def add_routes(app: web.Application, operations: Iterable[Operation]) -> None:
    """Route every operation, within the bounds that all have."""
    for operation in operations:
        handler = operation.handler
        if operation.needs_key:
            handler = passed_on(handler, path=operation.path, anywhere=operation.anywhere)
            handler = guarded(handler, streams=operation.streams, waits=operation.waits, tells_all=operation.tells_all)
        if operation.method == "GET":
            app.router.add_get(operation.path, handler, allow_head=not operation.streams)
        else:
            app.router.add_route(operation.method, operation.path, handler)


def keyless(operations: Iterable[Operation]) -> frozenset[Handler]:
    """The handlers of those that nobody needs a key for."""
    return frozenset(operation.handler for operation in operations if not operation.needs_key)


def build(operations: Iterable[Operation], *, version: str, title: str = "Askahead") -> dict[str, Any]:
    """The OpenAPI 3.1 document.

    Args:
        operations: all of them, in the order to show them in.
        version: version of the server.
        title: its name.

    Raises:
        ValueError: two operations share a method and a path.
    """
    operations = tuple(operations)
    references, schemas = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        item = paths.setdefault(operation.template, {})
        if operation.method.lower() in item:
            raise ValueError(f"{operation.method} {operation.template} is defined twice")
        item[operation.method.lower()] = _operation(operation, references, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "summary": "Push data as it arrives; standing questions are answered before you ask.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
        "paths": paths,
        "security": [{}, *({name: []} for name in _SECURITY_SCHEMES)],
        "components": {"schemas": schemas | _ERROR_SCHEMAS, "securitySchemes": _SECURITY_SCHEMES},
    }


_Key = tuple[type[BaseModel], JsonSchemaMode]


def _schemas(operations: Iterable[Operation]) -> tuple[Mapping[Any, Any], dict[str, Any]]:
    """References to, and definitions of, all models; pydantic settles names that collide."""
    used: dict[_Key, None] = {}
    for operation in operations:
        for model in (operation.request, operation.query):
            if model is not None:
                used[model, "validation"] = None
        if operation.response is not None:
            used[operation.response, "serialization"] = None
    references, definitions = models_json_schema(list(used), ref_template=_REF)
    return references, definitions.get("$defs", {})


def _operation(operation: Operation, references: Mapping[Any, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    words = re.findall(r"\w+", operation.template)
    document: dict[str, Any] = {
        "operationId": "_".join([operation.method.lower(), *words]),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": _parameters(operation, references, schemas),
        "responses": _responses(operation, references),
    }
    if operation.description:
        document["description"] = operation.description
    if operation.request is not None:
        schema = references[operation.request, "validation"]
        required = any(item.is_required() for item in operation.request.model_fields.values())
        document["requestBody"] = {
            "required": required,
            "content": {kind: {"schema": schema} for kind in _BODY_TYPES},
        }
    if not operation.needs_key:
        document["security"] = []
    return document


def _parameters(
    operation: Operation, references: Mapping[Any, Any], schemas: Mapping[str, Any]
) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(operation.path)
    ]
    parameters += [
        {"name": name, "in": "header", "required": False, "description": meaning, "schema": {"type": "string"}}
        for name, meaning in operation.headers.items()
    ]
    if operation.query is not None:
        schema = schemas[references[operation.query, "validation"]["$ref"].rpartition("/")[2]]
        required = schema.get("required", [])
        for name, item in schema.get("properties", {}).items():
            parameter = {"name": name, "in": "query", "required": name in required, "schema": item}
            if "description" in item:
                parameter["description"] = item["description"]
            parameters.append(parameter)
    return parameters


def _responses(operation: Operation, references: Mapping[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {} for kind in operation.content_types}
    if operation.response is not None:
        schema = references[operation.response, "serialization"]
        content |= {kind: {"schema": schema} for kind in _BODY_TYPES}
    success: dict[str, Any] = {"description": "OK"}
    if content:
        success["content"] = content
    envelope = "MessagesError" if operation.path.startswith("/v1/messages") else "Error"
    error = {"application/json": {"schema": {"$ref": _REF.format(model=envelope)}}}
    # A connection that changes its protocol has no other success.
    responses: dict[str, Any] = {} if 101 in operation.statuses else {"200": success}
    for status, meaning in sorted({**_common(operation), **operation.statuses}.items()):
        responses[str(status)] = {"description": meaning}
        if status >= 400:
            responses[str(status)]["content"] = error
    return responses


def _common(operation: Operation) -> dict[int, str]:
    """What any operation of this kind may be refused with. There is no "default": what is not said does not occur."""
    statuses: dict[int, str] = {}
    if operation.request is not None:
        statuses = {408: "The body did not arrive in time.", 413: "The body is too large."}
    if operation.request or operation.query or operation.headers or "{" in operation.path:
        statuses[400] = "A field, a parameter or a header is wrong."
    return statuses | GENERAL if operation.needs_key else statuses
