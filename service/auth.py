"""Who a request comes from: whoever holds a key, or, where there are none, an address."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from service.access.clients import Client, Clients

OPEN_PATHS = frozenset({"/health", "/healthz", "/livez", "/v1/health"})
"""Paths that orchestrators must reach without a key, as often as they like."""
OPEN_PAGE = "/dashboard"
"""A page, with all beneath it: a browser sends no key with what it opens, and the files tell nothing of anybody."""


def identify(request: web.Request, clients: Clients) -> Client | None:
    """Whose a request is, which is counted; None where that is of no interest.

    Raises:
        errors.Unauthorized: there are keys, and its key is missing or wrong.
        Overloaded: the client asks too often.
    """
    path = request.path
    if path in OPEN_PATHS or path == OPEN_PAGE or path.startswith(f"{OPEN_PAGE}/"):
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
