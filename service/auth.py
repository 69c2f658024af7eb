"""Who a request comes from: whoever holds a key, or, where there are none, an address."""

from __future__ import annotations

from aiohttp import web

from service.access.clients import Client, Clients

OPEN_PATHS = frozenset({"/health", "/healthz", "/v1/health"})
"""Paths that orchestrators must reach without a key, as often as they like."""


def identify(request: web.Request, clients: Clients) -> Client | None:
    """Whose a request is, which is counted; None where that is of no interest.

    Raises:
        errors.Unauthorized: there are keys, and its key is missing or wrong.
        Overloaded: the client asks too often.
    """
    if request.path in OPEN_PATHS:
        return None
    client = holder(request, clients)
    client.spend()
    return client


def holder(request: web.BaseRequest, clients: Clients) -> Client:
    """The same, not counted, whatever the path."""
    offered = (value for value in (_bearer(request), request.headers.get("x-api-key")) if value is not None)
    return clients.identify(offered, request.remote or "")


def _bearer(request: web.BaseRequest) -> str | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None
