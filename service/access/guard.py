"""The bounds within which every operation is served."""

from __future__ import annotations

import asyncio
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from service.access.clients import Client
from service.errors import Forbidden, Unauthorized
from service.keys import CLIENT, CLIENTS, SETTINGS
from streams.errors import Unavailable

_SCOPE: Final = web.RequestKey("scope", asyncio.Timeout)


def guarded(handler: Handler, *, streams: bool, waits: bool, tells_all: bool) -> Handler:
    """A handler that is served within its client's bounds, and ends when the client's key is withdrawn.

    Args:
        handler: serves the operation.
        streams: what it serves has no end of its own.
        waits: it may be asked to wait for what happens.
        tells_all: what it tells concerns all sessions.
    """

    async def run(request: web.Request) -> web.StreamResponse:
        client, settings = request[CLIENT], request.app[SETTINGS]
        if tells_all and client.prefix:
            raise Forbidden(
                "this concerns the sessions of everybody, and the key is limited to those whose ids start with "
                f"'{client.prefix}'; use one without a prefix",
                code="key_is_limited",
            )
        subscribes = streams or (waits and "wait" in request.query)
        with request.app[CLIENTS].serving(client, "subscriptions" if subscribes else "requests"):
            # A request may ask for two waits: for data of its own, then for an answer.
            patience = settings.answer_timeout_seconds + 2 * settings.wait_seconds_max
            return await _bounded(handler, request, client, patience)

    return run


async def _bounded(handler: Handler, request: web.Request, client: Client, patience: float) -> web.StreamResponse:
    try:
        async with asyncio.timeout(patience) as scope:
            request[_SCOPE] = scope
            client.scopes.add(scope)
            try:
                return await handler(request)
            finally:
                client.scopes.discard(scope)
                del request[_SCOPE]
    except TimeoutError:
        if not scope.expired():
            raise
        if client.withdrawn:
            raise Unauthorized("the key is no longer valid; use another") from None
        raise Unavailable(
            f"there was no answer within {patience:g} seconds; try again", code="answer_timeout", retry_after=1
        ) from None


def lift_deadline(request: web.Request) -> None:
    """What has begun may take its time."""
    scope = request.get(_SCOPE)
    if scope is not None and not scope.expired():
        scope.reschedule(None)
