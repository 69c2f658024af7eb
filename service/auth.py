"""Who a request comes from: whoever holds a key, or, where there are none, an address."""

from __future__ import annotations

from collections.abc import Iterator

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
    return clients.identify(_offered(request), request.remote or "")


def _offered(request: web.BaseRequest) -> Iterator[str]:
    """What may be keys; nobody looks where none is needed."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip()
    if (key := request.headers.get("x-api-key")) is not None:
        yield key
