"""Small applications with the edge of the real one and its keys, and handlers of a test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.typedefs import Handler

from service import edge, keys
from service.access.clients import Clients
from service.budget import BodyBudget
from service.metrics import Metrics
from service.settings import Settings


def edge_app(routes: Iterable[web.RouteDef], keyless: Container[Handler] = (), **settings: Any) -> web.Application:
    configured = Settings(**settings)
    metrics = Metrics(dict)
    app = web.Application(client_max_size=configured.max_body_bytes)
    app[keys.SETTINGS] = configured
    app[keys.METRICS] = metrics
    app[keys.CLIENTS] = clients = Clients(configured)
    app[keys.BODIES] = BodyBudget(configured.max_bodies_bytes)
    edge.install(app, configured, clients, metrics, keyless)
    app.add_routes(routes)
    return app


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(app)) as client:
        yield client


async def ok(request: web.Request) -> web.Response:
    return web.json_response({"ok": True})
