"""Small applications with the edge of the real one: its middlewares, signals and keys, and handlers of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from service import keys
from service.access.clients import Clients
from service.access.guard import lift_deadline
from service.auth import auth_middleware
from service.budget import BodyBudget
from service.cors import add_cors_headers, cors_middleware
from service.errors import error_middleware, stamp_response
from service.metrics import Metrics, http_metrics
from service.settings import Settings


def edge_app(routes: Iterable[web.RouteDef], **settings: Any) -> web.Application:
    configured = Settings(**settings)
    metrics = Metrics(dict)
    app = web.Application(
        middlewares=[http_metrics(metrics), error_middleware, cors_middleware, auth_middleware],
        client_max_size=configured.max_body_bytes,
    )
    app[keys.SETTINGS] = configured
    app[keys.METRICS] = metrics
    app[keys.CLIENTS] = Clients(configured)
    app[keys.BODIES] = BodyBudget(configured.max_bodies_bytes)
    app.on_response_prepare.append(stamp_response)
    app.on_response_prepare.append(add_cors_headers)
    app.on_response_prepare.append(lift_deadline)
    app.add_routes(routes)
    return app


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(app)) as client:
        yield client


async def ok(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})
