from __future__ import annotations

import asyncio
import logging
import re

import aiohttp
import pytest
import redis.exceptions
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service import errors
from service.errors import error_body
from streams.errors import (
    AskaheadError,
    Conflict,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    NotFound,
    Overloaded,
)
from tests.service.edge import edge_app, ok, serving


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidInput("m"), 400, "invalid_request_error"),
        (ContextLengthExceeded("m"), 400, "invalid_request_error"),
        (errors.Unauthorized("m"), 401, "authentication_error"),
        (errors.Forbidden("m"), 403, "permission_error"),
        (NotFound("m"), 404, "not_found_error"),
        (errors.RequestTimedOut("m"), 408, "invalid_request_error"),
        (Conflict("m"), 409, "conflict_error"),
        (errors.BodyTooLarge("m"), 413, "invalid_request_error"),
        (Overloaded("m"), 429, "rate_limit_error"),
        (EngineUnavailable("m"), 503, "overloaded_error"),
    ],
)
def test_each_kind_has_one_status_and_type(error: AskaheadError, status: int, kind: str) -> None:
    found, body, _ = error_body(error, "/v1/sessions")
    assert found == status
    assert body == {"error": {"message": "m", "type": kind, "param": None, "code": error.code}}


def test_field_and_code_are_told() -> None:
    error = ContextLengthExceeded("too long", param="prompt")
    assert error_body(error, "/v1/x")[1]["error"] == {
        "message": "too long",
        "type": "invalid_request_error",
        "param": "prompt",
        "code": "context_length_exceeded",
    }


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_messages_have_their_own_envelope(path: str) -> None:
    _, body, _ = error_body(NotFound("m"), path, "req_1")
    assert body == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "m"},
        "request_id": "req_1",
    }


def test_the_other_paths_do_not() -> None:
    assert "request_id" not in error_body(NotFound("m"), "/v1/messages_of_mine")[1]


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (1, "1"), (1.2, "2"), (0, "1")])
def test_retry_after_is_in_whole_seconds(seconds: float, header: str) -> None:
    assert error_body(Overloaded("m", retry_after=seconds), "/")[2] == {"Retry-After": header}


@pytest.mark.parametrize("error", [redis.exceptions.ConnectionError("10.0.0.1"), redis.exceptions.TimeoutError()])
def test_a_lost_store_is_unavailable_and_its_address_is_not_told(error: Exception) -> None:
    status, body, headers = error_body(error, "/")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert body["error"]["code"] == "store_unavailable"
    assert "10.0.0.1" not in str(body)


def test_anything_else_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    status, body, _ = error_body(ZeroDivisionError("secret"), "/", "req_1")
    assert status == 500
    assert body["error"]["type"] == "api_error"
    assert body["error"]["code"] == "internal_error"
    assert "req_1" in body["error"]["message"]
    assert "secret" not in str(body)
    assert "secret" in caplog.text
    assert "req_1" in caplog.text


async def _fail(request: web.Request) -> web.Response:
    raise {
        "conflict": Conflict("already there"),
        "bug": KeyError("secret"),
        "large": web.HTTPRequestEntityTooLarge(1, 2),
        "slow": web.HTTPRequestTimeout(),
        "timeout": TimeoutError("secret"),
        "moved": web.HTTPFound("/elsewhere"),
    }[request.match_info["kind"]]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/fail/conflict", 409, "conflict"),
        ("/fail/bug", 500, "internal_error"),
        ("/fail/timeout", 500, "internal_error"),
        ("/fail/large", 413, "request_entity_too_large"),
        ("/fail/slow", 408, "request_timeout"),
        ("/nowhere", 404, "not_found"),
    ],
)
async def test_every_failure_is_an_envelope(path: str, status: int, code: str) -> None:
    async with serving(edge_app([web.get("/fail/{kind}", _fail)])) as client:
        response = await client.get(path)
        assert response.status == status
        assert response.content_type == "application/json"
        body = await response.json()
        assert body["error"]["code"] == code
        assert body["error"]["message"]
        assert "secret" not in str(body)


async def test_a_wrong_method_is_told_the_right_ones() -> None:
    async with serving(edge_app([web.get("/x", ok), web.delete("/x", ok)])) as client:
        response = await client.post("/x", json={})
        assert response.status == 405
        assert response.headers["Allow"] == "DELETE, GET, HEAD"
        assert "DELETE, GET, HEAD" in (await response.json())["error"]["message"]


async def test_redirects_are_no_errors() -> None:
    async with serving(edge_app([web.get("/fail/{kind}", _fail)])) as client:
        response = await client.get("/fail/moved", allow_redirects=False)
        assert (response.status, response.headers["Location"]) == (302, "/elsewhere")


async def test_every_response_has_an_id() -> None:
    async with serving(edge_app([web.get("/x", ok), web.get("/fail/{kind}", _fail)])) as client:
        seen = set()
        for path in ("/x", "/x", "/nowhere", "/fail/bug", "/fail/moved"):
            response = await client.get(path, allow_redirects=False)
            seen.add(response.headers["x-request-id"])
        assert len(seen) == 5
        assert all(re.fullmatch("req_[0-9a-f]{24}", one) for one in seen)


@pytest.mark.parametrize("given", ["mine", "0AF7651916CD43DD8448EB211C80319C", "a.b_c-1", "x" * 128])
async def test_an_id_that_a_client_gives_is_kept(given: str) -> None:
    async with serving(edge_app([web.get("/x", ok), web.get("/v1/messages/{kind}", _fail)])) as client:
        for path in ("/x", "/nowhere", "/v1/messages/bug"):
            response = await client.get(path, headers={"X-Request-Id": given})
            assert response.headers["x-request-id"] == given
        assert (await response.json())["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "a=1", "a]", "schlüssel", "a,b"])
async def test_what_could_forge_a_line_of_the_log_is_no_id(given: str) -> None:
    async with serving(edge_app([web.get("/x", ok)])) as client:
        response = await client.get("/x", headers={"X-Request-Id": given})
        assert re.fullmatch("req_[0-9a-f]{24}", response.headers["x-request-id"])


async def test_the_log_and_the_client_get_the_same_id(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(edge_app([web.get("/v1/messages/{kind}", _fail)])) as client:
        response = await client.get("/v1/messages/bug")
        body = await response.json()
        assert body["request_id"] == response.headers["x-request-id"]
        assert body["request_id"] in caplog.text


async def test_a_stream_that_fails_is_cut_and_not_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        raise KeyError("secret")

    async with serving(edge_app([web.get("/stream", stream), web.get("/x", ok)])) as client:
        response = await client.get("/stream")
        assert await response.content.readany() == b"data: 1\n\n"
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.readany()
        assert (await client.get("/x")).status == 200
    failures = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(failures) == 1
    assert response.headers["x-request-id"] in failures[0].getMessage()


async def test_a_client_that_leaves_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"data: 1\n\n")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serving(edge_app([web.get("/stream", stream)])) as client:
        response = await client.get("/stream")
        await response.content.readany()
        response.close()
        async with asyncio.timeout(10):
            await ended.wait()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_cancellation_passes_through() -> None:
    async def cancelled(request: web.Request) -> web.StreamResponse:
        raise asyncio.CancelledError

    (enter,) = edge_app([]).middlewares
    with pytest.raises(asyncio.CancelledError):
        await enter(make_mocked_request("GET", "/"), cancelled)
