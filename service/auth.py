"""Who a request comes from: whoever holds a key, or, where there are none, an address."""

from __future__ import annotations

from collections.abc import Container, Iterator

from aiohttp import web
from aiohttp.typedefs import Handler

from service.access.clients import Client, Clients


def identify(request: web.Request, clients: Clients, keyless: Container[Handler]) -> Client | None:
    """Whose a request is, which is counted; None where that is of no interest.

    Args:
        request: routed already.
        clients: who may ask.
        keyless: handlers that nobody needs a key for, as often as they like.

    Raises:
        errors.Unauthorized: there are keys, and its key is missing or wrong.
        Overloaded: the client asks too often.
    """
    if request.match_info.handler in keyless:
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
