from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Any

import msgpack
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError, field_validator

from service import keys
from service.api.legacy.protocol import InitBody
from service.api.sessions.protocol import PushBody, SessionCreate, SocketMessage
from service.app import OPERATIONS
from service.bodies import Strict, invalid, parse, query_model, read_model, respond, wants_msgpack
from streams.errors import InvalidInput
from tests.service.edge import edge_app, serving

JSON = "application/json"
MSGPACK = "application/msgpack"


class Colour(StrEnum):
    RED = "red"


class Inner(Strict):
    size: int
    note: str | None = None

    @field_validator("size")
    @classmethod
    def _not_thirteen(cls, size: int) -> int:
        if size == 13:
            raise ValueError("must not be 13")
        return size


class Body(Strict):
    data: str | list[str] = "x"
    count: int = Field(default=1, le=10)
    ratio: float = 0.5
    flag: bool = False
    inner: Inner | None = None
    items: tuple[Inner, ...] = ()
    colour: Colour = Colour.RED
    anything: Any = None


class Query(Strict):
    wait: float = Field(default=0, ge=0)
    fresh: bool = False
    name: str | None = None
    tag: tuple[str, ...] = ()


async def _echo(request: web.Request) -> web.Response:
    body = await read_model(request, Body, allow_empty="optional" in request.path)
    return respond(request, body.model_dump(mode="json"))


async def _query(request: web.Request) -> web.Response:
    return respond(request, query_model(request, Query).model_dump())


ROUTES = [web.post("/body", _echo), web.post("/optional", _echo), web.get("/query", _query)]


@pytest.fixture(scope="session")
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with serving(edge_app(ROUTES, max_body_bytes=65_536, request_timeout_seconds=0.3)) as running:
        yield running


def _refusal(value: object, content_type: str = JSON) -> InvalidInput:
    body = orjson.dumps(value) if content_type == JSON else msgpack.packb(value)
    with pytest.raises(InvalidInput) as caught:
        parse(body, content_type, Body)
    return caught.value


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_both_spellings_mean_the_same(content_type: str) -> None:
    value = {"data": ["a", "ü"], "items": [{"size": 3}], "colour": "red", "ratio": 1, "anything": {"k": [1, None]}}
    body = orjson.dumps(value) if content_type == JSON else msgpack.packb(value)
    parsed = parse(body, content_type, Body)
    assert parsed.data == ["a", "ü"]
    assert parsed.items == (Inner(size=3),)
    assert parsed.colour is Colour.RED
    assert parsed.ratio == 1.0
    assert parsed.anything == {"k": [1, None]}


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
@pytest.mark.parametrize(
    ("value", "param", "message"),
    [
        ({"count": "1"}, "count", "count: Input should be a valid integer"),
        ({"count": 1.0}, "count", "count: Input should be a valid integer"),
        ({"count": True}, "count", "count: Input should be a valid integer"),
        ({"count": 11}, "count", "count: Input should be less than or equal to 10"),
        ({"flag": 1}, "flag", "flag: Input should be a valid boolean"),
        ({"foo": 1}, "foo", "`foo` is not supported by this endpoint"),
        ({"inner": {"size": 1, "x": 1}}, "inner.x", "`inner.x` is not supported by this endpoint"),
        ({"inner": {}}, "inner.size", "inner.size: Field required"),
        ({"items": [{"size": 1}, {"size": "1"}]}, "items.1.size", "items.1.size: Input should be a valid integer"),
        ({"items": [{"size": 13}]}, "items.0.size", "items.0.size: must not be 13"),
        ({"data": 5}, "data", "data: Input should be a valid string; or Input should be a valid array"),
        ({"data": ["a", 5]}, "data.1", "data.1: Input should be a valid string"),
        ({"colour": "blue"}, "colour", "colour: Input should be 'red'"),
        ([], "body", "the body must be an object"),
        ("text", "body", "the body must be an object"),
        (None, "body", "the body must be an object"),
    ],
)
def test_the_first_wrong_field_is_named(content_type: str, value: object, param: str, message: str) -> None:
    error = _refusal(value, content_type)
    assert (error.param, error.message) == (param, message)


def test_several_wrong_fields_give_one_error() -> None:
    assert _refusal({"count": "x", "flag": "x"}).param == "count"


def test_huge_names_and_values_are_not_echoed() -> None:
    assert len(_refusal({"x" * 50_000: 1}).message) < 600
    assert len(_refusal({"x" * 50_000: 1}).param or "") < 150
    assert len(_refusal({"count": "x" * 50_000}).message) < 600


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"ratio": NaN}',
        b'{"anything": NaN}',
        b'{"anything": Infinity}',
        b'{"anything": 1e400}',
        b'{"data": "\xff"}',
        b'{"data": "\\ud800"}',
        b'{"anything": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"anything": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"count": 99999999999999999999999999}',
        b'{"count": -99999999999999999999999999}',
    ],
    ids=lambda body: body[:30],
)
def test_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(body, JSON, Body)
    assert caught.value.param in ("body", "count")
    assert len(caught.value.message) < 600


def test_integers_beyond_64_bits_can_be_sent_back() -> None:
    parsed = parse(b'{"anything": [18446744073709551616, -1e30]}', JSON, Body)
    assert orjson.dumps(parsed.model_dump(mode="json"))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgpack.packb({"data": "x"}) + b"\x00",
        msgpack.packb({"anything": float("nan")}),
        msgpack.packb({"anything": float("inf")}),
        msgpack.packb({"data": b"binary"}),
        msgpack.packb({"anything": b""}),
        msgpack.packb({b"data": "x"}),
        msgpack.packb({1: "x"}),
        msgpack.packb({"anything": {1: "x"}}),
        msgpack.packb({"anything": msgpack.ExtType(5, b"x")}),
        msgpack.packb({"anything": msgpack.ExtType(5, b"")}),
        msgpack.packb({"anything": msgpack.Timestamp(1)}),
        b"\x81\xa4data\xa1\xff",
        b"\x81\xa8anything" + b"\x91" * 5000 + b"\xc0",
        b"\x81\xa8anything" + b"\x91" * 400 + b"\xc0",
        b"\xdf\xff\xff\xff\xff",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_bad_msgpack_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        parse(body, MSGPACK, Body)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers(body: bytes) -> None:
    for content_type in (JSON, MSGPACK):
        with contextlib.suppress(InvalidInput):
            parse(body, content_type, Body)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_BODIES = st.dictionaries(st.sampled_from([*Body.model_fields, "other"]), _VALUES, max_size=5) | _VALUES


@settings(max_examples=150, deadline=None)
@given(value=_BODIES)
async def test_no_json_gives_a_server_error(client: TestClient[web.Request, web.Application], value: object) -> None:
    response = await client.post("/body", data=json.dumps(value), headers={"content-type": JSON})
    assert response.status in (200, 400)
    if response.status == 400:
        error = (await response.json())["error"]
        assert error["param"]
        assert error["message"]


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=300), kind=st.sampled_from([JSON, MSGPACK, "application/ld+json", "text/plain"]))
async def test_no_bytes_give_a_server_error(
    client: TestClient[web.Request, web.Application], body: bytes, kind: str
) -> None:
    response = await client.post("/body", data=body, headers={"content-type": kind})
    assert response.status in (200, 400)


@settings(max_examples=100, deadline=None)
@given(query=st.text(max_size=40))
async def test_no_query_gives_a_server_error(client: TestClient[web.Request, web.Application], query: str) -> None:
    response = await client.get("/query", params={"name": query.encode("utf-8", "replace").decode(), "wait": "1"})
    assert response.status == 200
    response = await client.get("/query", params={"wait": query.encode("utf-8", "replace").decode()})
    assert response.status in (200, 400)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_a_wrong_content_type_is_named(client: TestClient[web.Request, web.Application], kind: str) -> None:
    response = await client.post("/body", data=b"{}", headers={"content-type": kind})
    assert response.status == 400
    error = (await response.json())["error"]
    assert (error["param"], error["code"]) == ("content-type", "invalid_value")


async def test_a_content_type_may_have_parameters(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.post("/body", data=b"{}", headers={"content-type": "application/json; charset=utf-8"})
    assert response.status == 200


async def test_an_absent_body_is_empty_where_allowed(client: TestClient[web.Request, web.Application]) -> None:
    assert (await client.post("/optional")).status == 200
    assert (await client.post("/optional", data=b"", headers={"content-type": JSON})).status == 200
    response = await client.post("/body")
    assert response.status == 400
    assert "body is required" in (await response.json())["error"]["message"]


async def test_compressed_bodies_are_read_and_bounded(client: TestClient[web.Request, web.Application]) -> None:
    headers = {"content-type": JSON, "content-encoding": "gzip"}
    response = await client.post("/body", data=gzip.compress(b'{"count": 7}'), headers=headers)
    assert (await response.json())["count"] == 7
    bomb = gzip.compress(b'{"data": "' + b"x" * 5_000_000 + b'"}')
    assert len(bomb) < 65_536
    response = await client.post("/body", data=bomb, headers=headers)
    assert response.status == 413
    response = await client.post("/body", data=b"no gzip at all", headers=headers)
    assert response.status == 400


async def test_a_large_body_is_refused_declared_or_not(client: TestClient[web.Request, web.Application]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 8192

    for data in (b" " * 70_000, pieces()):
        response = await client.post("/body", data=data, headers={"content-type": JSON})
        assert response.status == 413
        error = (await response.json())["error"]
        assert (error["code"], error["param"]) == ("body_too_large", "body")


async def _raw(client: TestClient[web.Request, web.Application], request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    try:
        writer.write(request)
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.read(65_536)
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_does_not_arrive_times_out(client: TestClient[web.Request, web.Application]) -> None:
    answer = await _raw(
        client,
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    )
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"request_timeout"' in answer
    assert client.app[keys.BODIES].held == 0


async def test_broken_chunks_are_refused(client: TestClient[web.Request, web.Application]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\n{   \r\n"
    )
    async with asyncio.timeout(10):
        while client.app[keys.BODIES].held == 0:
            await asyncio.sleep(0.005)
        writer.write(b"nonsense\r\n}\r\n0\r\n\r\n")
        status = await reader.readline()
    # The HTTP parser gives up on the connection; the request that was being read is refused when its time is over.
    assert status.split()[1] in (b"400", b"408")
    writer.close()
    await writer.wait_closed()


async def test_all_bodies_together_are_bounded() -> None:
    app = edge_app(ROUTES, max_bodies_bytes=4096, request_timeout_seconds=10)
    async with serving(app) as running:
        app[keys.BODIES].take(4000)
        response = await running.post("/body", data=b" " * 200, headers={"content-type": JSON})
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert "server is holding too many request bodies" in (await response.json())["error"]["message"]
        app[keys.BODIES].give_back(4000)
        assert (await running.post("/body", data=b"{}", headers={"content-type": JSON})).status == 200
        assert app[keys.BODIES].held == 0


async def test_queries_are_coerced(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.get("/query?wait=1.5&tag=b&fresh=true&name=5&tag=a")
    assert await response.json() == {"wait": 1.5, "fresh": True, "name": "5", "tag": ["b", "a"]}


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("wait=x", "wait"),
        ("wait=-1", "wait"),
        ("wait=nan", "wait"),
        ("wait=inf", "wait"),
        ("fresh=perhaps", "fresh"),
        ("other=1", "other"),
        ("wait=1&wait=2", "wait"),
        ("name=%ff&wait=x", "wait"),
    ],
)
async def test_bad_queries_are_refused(
    client: TestClient[web.Request, web.Application], query: str, param: str
) -> None:
    response = await client.get(f"/query?{query}")
    assert response.status == 400
    assert (await response.json())["error"]["param"] == param


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("*/*", False),
        ("application/json", False),
        ("application/msgpack", True),
        ("APPLICATION/MSGPACK", True),
        ("application/x-msgpack, */*", True),
        ("application/vnd.msgpack;q=0.5, application/json;q=0.4", True),
        ("application/msgpack;q=0.3, application/json", False),
        ("application/msgpack;q=0", False),
        ("application/msgpack;q=much", False),
        ("application/msgpack; q=nan", False),
        (",;,=,", False),
    ],
)
def test_msgpack_is_sent_to_whom_asks(accept: str | None, wanted: bool) -> None:
    request = make_mocked_request("GET", "/", headers={} if accept is None else {"Accept": accept})
    assert wants_msgpack(request) is wanted


async def test_answers_come_in_the_wanted_spelling(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.get("/query?name=a", headers={"Accept": MSGPACK})
    assert response.content_type == MSGPACK
    assert response.headers["Vary"] == "Accept"
    assert msgpack.unpackb(await response.read())["name"] == "a"
    response = await client.get("/query?name=a")
    assert response.content_type == JSON


def _lists(model: type[BaseModel]) -> list[str]:
    """Its fields that may be lists."""
    properties = model.model_json_schema()["properties"]
    return [
        name
        for name, schema in properties.items()
        if any(kind.get("type") == "array" for kind in (schema, *schema.get("anyOf", ())))
    ]


_REQUESTS = dict.fromkeys(operation.request for operation in OPERATIONS if operation.request is not None)
_LISTS = [(model, name) for model in (*_REQUESTS, SocketMessage, Body) for name in _lists(model)]


@pytest.mark.parametrize(("model", "name"), _LISTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_list_of_what_is_wrong_is_refused_at_the_first(model: type[BaseModel], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(orjson.dumps({name: [0] * 10_000}))
    told = [detail for detail in caught.value.errors() if detail["loc"][0] == name]
    assert 1 <= len(told) < 10
    assert invalid(caught.value, {name: [0]}).message


def test_lists_in_lists_are_refused_at_the_first() -> None:
    with pytest.raises(ValidationError) as caught:
        SessionCreate.model_validate_json(orjson.dumps({"flash": [{"query": "Hot?", "choices": [0] * 32}]}))
    assert caught.value.error_count() == 1
    refusal = invalid(caught.value, {"flash": [{"query": "Hot?", "choices": [0]}]})
    assert (refusal.param, refusal.message) == (
        "flash.0.choices.0",
        "flash.0.choices.0: Input should be a valid string",
    )


@pytest.mark.parametrize("model", [SessionCreate, InitBody])
def test_queries_to_register_with_a_session_are_bounded(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError, match="at most 1024"):
        model.model_validate_json(orjson.dumps({"type": "iot", "flash": [{"query": "Hot?"}] * 1025}))


def test_a_body_of_nothing_but_wrong_fields_is_refused_without_looking_at_each() -> None:
    body = orjson.dumps({f"field{number}": 1 for number in range(5000)})
    with pytest.raises(InvalidInput, match="fields that are wrong") as refused:
        parse(body, "application/json", PushBody)
    assert refused.value.param == "body"
