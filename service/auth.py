"""Who may use the server: everybody, or whoever has the key."""

from __future__ import annotations

import hmac

from aiohttp import web
from aiohttp.typedefs import Handler

from service import errors, keys
from service.cors import is_preflight

OPEN_PATHS = frozenset({"/health", "/healthz", "/v1/health"})
"""Paths that orchestrators must reach without a key."""


@web.middleware
async def auth_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse requests without the key, where one is set.

    Raises:
        errors.Unauthorized: the key is missing or wrong.
    """
    key = request.app[keys.SETTINGS].api_key
    if key is None or request.path in OPEN_PATHS or is_preflight(request):
        return await handler(request)
    offered = [value for value in (_bearer(request), request.headers.get("x-api-key")) if value is not None]
    if not offered:
        raise errors.Unauthorized(
            "this server needs a key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`",
            code="missing_api_key",
        )
    expected = key.get_secret_value().encode()
    # Bytes, since headers may hold what is no text; every offer is compared, so that time says nothing.
    matches = [hmac.compare_digest(value.encode("utf-8", "surrogateescape"), expected) for value in offered]
    if not any(matches):
        raise errors.Unauthorized("the key is wrong")
    return await handler(request)


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
