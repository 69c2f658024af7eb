"""From exceptions to what a client sees: status, headers and one of two envelopes. The only place that knows both."""

from __future__ import annotations

import logging
import math
import random
import re
from http import HTTPStatus

import orjson
import redis.exceptions
from aiohttp import web
from multidict import istr

from streams.errors import (
    AskaheadError,
    Conflict,
    InvalidInput,
    NotFound,
    Overloaded,
    Unavailable,
)

log = logging.getLogger(__name__)

REQUEST_ID = web.RequestKey("request_id", str)
PREPARED = web.RequestKey("prepared", bool)

_MESSAGE_LIMIT = 2000
# Found without its letters being looked at.
_ID_HEADER = istr("x-request-id")
# What proxies and clients make ids of; nothing that could be taken for something else in a line of the log.
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Unauthorized(AskaheadError):
    """The request carries no key, or a wrong one."""

    code = "invalid_api_key"


class Forbidden(AskaheadError):
    """The request is understood and will not be served to this client."""

    code = "forbidden"


class RequestTimedOut(AskaheadError):
    """The request did not arrive in time."""

    code = "request_timeout"


class BodyTooLarge(AskaheadError):
    """The body exceeds the limit."""

    code = "body_too_large"


_STATUS: tuple[tuple[type[AskaheadError], int], ...] = (
    (InvalidInput, 400),
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (RequestTimedOut, 408),
    (Conflict, 409),
    (BodyTooLarge, 413),
    (Overloaded, 429),
    (Unavailable, 503),
)

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def new_request_id() -> str:
    """An id that names one request in answers and in the log; no secret, since it grants nothing."""
    return f"req_{random.getrandbits(96):024x}"


def request_id(request: web.BaseRequest) -> str:
    """The id of this request: the client's own, or one that is made here."""
    if REQUEST_ID not in request:
        request[REQUEST_ID] = given_request_id(request) or new_request_id()
    return request[REQUEST_ID]


def given_request_id(request: web.BaseRequest) -> str:
    """The id that a client, or a proxy before us, has given a request; empty if that is none."""
    given = request.headers.get(_ID_HEADER, "")
    return given if given and _GIVEN_ID.fullmatch(given) else ""


def error_body(
    exc: Exception, path: str, request_id: str | None = None
) -> tuple[int, dict[str, object], dict[str, str]]:
    """What to tell the client about ``exc``, as HTTP status, body and extra headers.

    Usable wherever an error is told: as a response, in the middle of a stream, on a websocket. An exception that is
    not meant for clients is logged here with its traceback, under the request id that the client is given.

    Args:
        exc: the error.
        path: path of the request; it decides the envelope.
        request_id: id of the request; made up where there is none.
    """
    request_id = request_id or new_request_id()
    status, error, headers = _describe(exc, request_id)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        body: dict[str, object] = {
            "type": "error",
            "error": {"type": kind, "message": error.message},
            "request_id": request_id,
        }
    else:
        body = {
            "error": {"message": error.message, "type": kind, "param": error.param, "code": error.code},
        }
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return status, body, headers


def _describe(exc: Exception, request_id: str) -> tuple[int, AskaheadError, dict[str, str]]:
    if isinstance(exc, web.HTTPException):
        return _describe_http(exc)
    if isinstance(exc, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError):
        # The address and the reason are the operator's business.
        log.warning("the store does not answer: %s", exc)
        error: AskaheadError = Unavailable(
            "the store (Redis) does not answer; try again shortly", code="store_unavailable", retry_after=1
        )
        return 503, error, {}
    if isinstance(exc, AskaheadError):
        for kind, status in _STATUS:
            if isinstance(exc, kind):
                headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
                return status, exc, headers
    log.error("request %s failed", request_id, exc_info=exc)
    message = f"the server failed to answer this request; its log has the details under {request_id}"
    return 500, AskaheadError(message, code="internal_error"), {}


def _describe_http(exc: web.HTTPException) -> tuple[int, AskaheadError, dict[str, str]]:
    """Put aiohttp's own refusals in our words."""
    headers: dict[str, str] = {}
    if isinstance(exc, web.HTTPMethodNotAllowed):
        headers["Allow"] = ", ".join(sorted(exc.allowed_methods))
        message = f"this path does not answer that method; it answers {headers['Allow']}"
    elif isinstance(exc, web.HTTPNotFound):
        message = "there is nothing at this path; /docs lists what there is"
    else:
        message = (exc.text or exc.reason)[:_MESSAGE_LIMIT]
    return exc.status, AskaheadError(message, code=HTTPStatus(exc.status).name.lower()), headers


def refusal(request: web.Request, exc: Exception) -> web.Response:
    """The response to what a request has failed with.

    Once a response has started its status cannot be changed: the error is logged and the connection closed, so that the
    client sees a broken stream and not a complete one.
    """
    transport = request.transport
    if isinstance(exc, ConnectionError) and (transport is None or transport.is_closing()):
        log.debug("request %s: the client left", request_id(request))
        return _unsendable(499)
    status, body, headers = error_body(exc, request.path, request_id(request))
    if PREPARED in request:
        if status < 500:
            log.warning("request %s was cut short: %s", request_id(request), exc)
        if transport is not None:
            transport.close()
        return _unsendable(status)
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


def _unsendable(status: int) -> web.Response:
    """What to return where nothing can be sent any more: aiohttp finds the transport closed and ends the request.

    Raising instead would make it log the error a second time, as its own. The status is for the metrics alone.
    """
    return web.Response(status=status)


def stamp(request: web.Request, response: web.StreamResponse) -> None:
    """Give a response that is about to begin its ``x-request-id``."""
    request[PREPARED] = True
    response.headers["x-request-id"] = request_id(request)
