"""Which web pages may use the server: its own, and those of the allowed origins."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from aiohttp import web

from service import errors

EXPOSED_HEADERS = "x-request-id, ETag, Retry-After, X-Chat-Template"

_METHODS = "GET, POST, PUT, PATCH, DELETE"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PREFLIGHT_SECONDS = 600
# Client libraries add headers of their own, so what is asked for is allowed: the origin decides, not the header.
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_\-, ]{1,2000}")


def is_preflight(request: web.BaseRequest) -> bool:
    """True for the question a browser asks before a cross-origin request."""
    return (
        request.method == "OPTIONS"
        and "Origin" in request.headers
        and "Access-Control-Request-Method" in request.headers
    )


def origin_allowed(request: web.BaseRequest, origins: Collection[str]) -> bool:
    """True unless the request comes from a web page of an origin that is neither ours nor in ``origins``."""
    origin = request.headers.get("Origin")
    return origin is None or _listed(origin, origins) or _same_host(origin, request.host)


def _listed(origin: str, origins: Collection[str]) -> bool:
    return "*" in origins or origin.lower() in origins


def _same_host(origin: str, host: str) -> bool:
    # The scheme is left out: behind a proxy that ends TLS, only the browser knows it.
    try:
        url = urlsplit(origin.lower())
    except ValueError:
        return False
    default_port = {"http": ":80", "https": ":443"}.get(url.scheme)
    if default_port is None or not url.netloc:
        return False
    return url.netloc.removesuffix(default_port) == host.lower().removesuffix(default_port)


def preflight(request: web.BaseRequest, origins: Collection[str]) -> web.Response:
    """The answer to a preflight."""
    headers = {"Vary": "Access-Control-Request-Headers"}
    if origin_allowed(request, origins):
        headers["Access-Control-Allow-Methods"] = _METHODS
        headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
        wanted = request.headers.get("Access-Control-Request-Headers", "")
        if _HEADER_NAMES.fullmatch(wanted):
            headers["Access-Control-Allow-Headers"] = wanted
    return web.Response(status=204, headers=headers)


def check_origin(request: web.BaseRequest, origins: Collection[str]) -> None:
    """Refuse changes that foreign pages ask for.

    Browsers send some requests without asking first, and only hide the answer; what changes state must not run.

    Raises:
        errors.Forbidden: it is such a request, from an origin that is not allowed.
    """
    if request.method not in _SAFE_METHODS and not origin_allowed(request, origins):
        raise errors.Forbidden(
            "pages of this origin may not use this server; its operator can allow it with --cors-origins",
            code="origin_not_allowed",
        )


def add_cors_headers(request: web.BaseRequest, response: web.StreamResponse, origins: Collection[str]) -> None:
    """Let pages of the allowed origins, of which there are some, read the response, streams and errors included."""
    response.headers.add("Vary", "Origin")
    origin = request.headers.get("Origin")
    if origin is not None and _listed(origin, origins):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED_HEADERS
