"""Who a request comes from: whoever holds a key, or, where there are none, an address."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from service import keys
from service.cors import is_preflight

OPEN_PATHS = frozenset({"/health", "/healthz", "/v1/health"})
"""Paths that orchestrators must reach without a key, as often as they like."""


@web.middleware
async def auth_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests without a key, where there are keys, and those of clients that ask too often.

    Raises:
        errors.Unauthorized: the key is missing or wrong.
        Overloaded: the client asks too often.
    """
    if request.path in OPEN_PATHS or is_preflight(request):
        return await handler(request)
    offered = (value for value in (_bearer(request), request.headers.get("x-api-key")) if value is not None)
    client = request.app[keys.CLIENTS].identify(offered, request.remote or "")
    client.spend()
    request[keys.CLIENT] = client
    return await handler(request)


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
