"""Whatever is sent to what ``/openapi.json`` describes, the answer is one that it describes as well, and no 5xx.

For a pytest process of its own (see ``test_documented.py``): schemathesis takes Hypothesis apart when it is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any
from zlib import crc32

import httpx
import msgpack
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis import CheckFunction, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from service.api.legacy import routes as legacy
from service.api.requests import SESSION_HEADER
from service.app import OPERATIONS
from service.openapi import Operation, build
from tests.servers import FAST, serving

MSGPACK = "application/msgpack"
CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
READINGS = [{"sid": "a", "val": value, "lo": 0, "hi": 5, "timestamp": value} for value in range(9)]
OWN = {"schema": {"type": "object", "properties": {"host": {"type": "string"}}}, "template": "{host}"}
# One session of each kind, with what is pushed into it.
KINDS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "text": ({}, ["one line", "another"]),
    "typed": ({"type": "iot", "window": 200, "pre_decode": True}, READINGS),
    "own": ({"type": OWN}, [{"host": "a1"}]),
}
QUERY = {"query": "Hot?", "max_tokens": 4}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
DOCUMENT = build(OPERATIONS, version="test")
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            # A stream is read up to its first event, and left.
            "max-stream-events": 1,
            "request-timeout": 20,
            "checks": {"not_a_server_error": {"expected-statuses": [101, "2xx", "3xx", "4xx"]}},
        }
    ),
)


@schemathesis.serializer(MSGPACK)
def _pack(_: schemathesis.SerializationContext, value: Any) -> dict[str, Any]:
    return {"data": msgpack.packb(value)}


@schemathesis.deserializer(MSGPACK)
def _unpack(_: schemathesis.DeserializationContext, response: schemathesis.Response) -> Any:
    return msgpack.unpackb(response.content)


class Live:
    """A server, and the sessions that there are on it."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.url = str(http.base_url)
        self.ids: list[str] = []

    def begin(self) -> None:
        """Have one session of each kind, all new, and no other."""
        for session in self._ok("GET", "/v1/sessions")["data"]:
            self._ok("DELETE", f"/v1/sessions/{session['id']}")
        for id, (options, entries) in KINDS.items():
            self._ok("POST", "/v1/sessions", {"id": id, "flash": [QUERY], **options})
            self._ok("POST", f"/v1/sessions/{id}/push", {"data": entries})
        old = self._ok("POST", "/v1/sessions/init", {"type": "iot", "flash": [QUERY]})["session_id"]
        self._ok("POST", f"/v1/sessions/{old}/stream/push", {"data": READINGS})
        self.ids = [*KINDS, old]

    def _ok(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def aim(self, case: schemathesis.Case, operation: Operation) -> list[CheckFunction]:
        """Have most requests be about something that there is; what they say decides about what. Returns the checks."""
        said = crc32(
            json.dumps(
                [case.path_parameters, case.query, case.body], default=lambda value: type(value).__name__
            ).encode()
        )
        old = operation in legacy.OPERATIONS
        ids = [*([self.ids[-1]] * len(self.ids) if old else self.ids), None]
        id = ids[said % len(ids)]
        if id is None:
            return CHECKS
        if "id" in case.path_parameters:
            case.path_parameters["id"] = "fast" if operation.template.startswith("/v1/models") else id
        if "fid" in case.path_parameters:
            case.path_parameters["fid"] = "1"
        if SESSION_HEADER in case.headers:
            case.headers[SESSION_HEADER] = id
        # The document has the old generation's shapes of paths that both have in words only.
        return CHECKS[:-1] if id == self.ids[-1] and not old else CHECKS


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with (
        serving(FAST, tmp_path_factory.mktemp("documented")) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        yield Live(http)


@pytest.fixture
def fresh(live: Live) -> Live:
    live.begin()
    return live


@cache
def cases(method: str, template: str) -> st.SearchStrategy[schemathesis.Case]:
    """Requests that the document allows, and such as it does not."""
    described = schema[template][method]
    return st.one_of([described.as_strategy(generation_mode=mode) for mode in GenerationMode])


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: f"{operation.method} {operation.template}")
@given(data=st.data())
@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=20,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_answer_is_documented(fresh: Live, operation: Operation, data: st.DataObject) -> None:
    case = data.draw(cases(operation.method, operation.template))
    checks = fresh.aim(case, operation)
    try:
        answer = case.call(base_url=fresh.url, headers=UPGRADE if 101 in operation.statuses else None)
    except (OverflowError, UnicodeEncodeError):
        # What is drawn cannot be spelled in msgpack: integers beyond 64 bits, halves of surrogate pairs.
        reject()
    if operation.method == "DELETE" and answer.status_code == 200:
        fresh.begin()
    case.validate_response(answer, checks=checks)


def test_the_server_serves_that_document(live: Live) -> None:
    served = live.http.get("/openapi.json").json()
    assert served["paths"] == DOCUMENT["paths"]
    assert served["components"] == DOCUMENT["components"]
