"""The edge: what every request passes on its way in, and every response on its way out.

One middleware and one signal handler, since each layer is run through by every poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container

from aiohttp import web
from aiohttp.typedefs import Handler

from service.access.clients import Clients
from service.access.guard import lift_deadline
from service.auth import identify
from service.cors import add_cors_headers, check_origin, is_preflight, preflight
from service.errors import refusal, stamp
from service.keys import CLIENT
from service.metrics import Metrics
from service.served import Served
from service.settings import Settings


def install(
    app: web.Application, settings: Settings, clients: Clients, metrics: Metrics, keyless: Container[Handler]
) -> None:
    """Have all requests of an application pass.

    Args:
        app: the application.
        settings: the server's.
        clients: who may ask.
        metrics: told of each request.
        keyless: handlers that nobody needs a key for.
    """
    origins = settings.cors_origins

    @web.middleware
    async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
        metrics.connections += 1
        with Served(request) as served:
            try:
                if is_preflight(request):
                    response: web.StreamResponse = preflight(request, origins)
                else:
                    check_origin(request, origins)
                    client = identify(request, clients, keyless)
                    if client is not None:
                        request[CLIENT] = client
                    response = await handler(request)
                served.status = response.status
                return response
            except asyncio.CancelledError:
                raise
            except (web.HTTPSuccessful, web.HTTPRedirection) as exc:
                served.status = exc.status
                raise
            except Exception as exc:
                response = refusal(request, exc)
                served.status = response.status
                return response
            finally:
                metrics.connections -= 1
                metrics.count(request, served.status)

    async def leave(request: web.Request, response: web.StreamResponse) -> None:
        stamp(request, response)
        if origins:
            add_cors_headers(request, response, origins)
        lift_deadline(request)

    app.middlewares.append(enter)
    app.on_response_prepare.append(leave)
