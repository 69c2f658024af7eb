"""Health, metrics and documentation."""

from __future__ import annotations

from pathlib import Path

import redis.exceptions
from aiohttp import web

from service import keys
from service.api.system.protocol import Alive, Health
from service.bodies import respond
from service.core import CORE
from service.metrics import CONTENT_TYPE
from service.openapi import Operation
from service.pages import UNCHANGED, pages
from streams.store import in_time

STORE_SECONDS = 0.5
"""How long ``/health`` waits for Redis, in seconds; probes have short timeouts of their own."""

_PAGES = pages(Path(__file__).parent)


async def health(request: web.Request) -> web.Response:
    """200 when questions can be answered, else 503, with the same body."""
    metrics = request.app[keys.METRICS]
    ready = request.app[CORE].up
    payload = {
        "status": "ok" if ready else "unavailable",
        "engine": request.app[keys.SUPERVISOR].state,
        "store": "ok" if await _store_answers(request.app) else "degraded",
        "uptime_ms": int(metrics.uptime * 1000),
        **metrics.gauges(),
        **metrics.totals(),
    }
    return respond(request, payload, status=200 if ready else 503, headers={"Cache-Control": "no-store"})


async def alive(request: web.Request) -> web.Response:
    """200 as long as the server answers at all."""
    return respond(request, Alive().model_dump(), headers={"Cache-Control": "no-store"})


async def _store_answers(app: web.Application) -> bool:
    try:
        async with in_time(STORE_SECONDS):
            await app[keys.REDIS].ping()
    except (redis.exceptions.RedisError, OSError):
        return False
    return True


async def metrics(request: web.Request) -> web.Response:
    """Everything counted and measured, for Prometheus."""
    return web.Response(body=request.app[keys.METRICS].render(), headers={"Content-Type": CONTENT_TYPE})


async def openapi_document(request: web.Request) -> web.Response:
    """The OpenAPI document."""
    return web.Response(body=request.app[keys.OPENAPI], content_type="application/json")


async def docs(request: web.Request) -> web.Response:
    """The documentation page."""
    return _PAGES["docs.html"].answer(request)


async def docs_style(request: web.Request) -> web.Response:
    """The page's style sheet."""
    return _PAGES["docs.css"].answer(request)


async def docs_script(request: web.Request) -> web.Response:
    """The page's script."""
    return _PAGES["docs.js"].answer(request)


_HEALTH_STATUSES = {503: "Not ready; the same body"}

OPERATIONS = (
    Operation(
        method="GET",
        path="/health",
        handler=health,
        tag="System",
        summary="Is the server ready?",
        description="Also every counter, as a number.",
        response=Health,
        statuses=_HEALTH_STATUSES,
        needs_key=False,
    ),
    Operation(
        method="GET",
        path="/healthz",
        handler=health,
        tag="System",
        summary="The same, by the name orchestrators use",
        response=Health,
        statuses=_HEALTH_STATUSES,
        needs_key=False,
    ),
    Operation(
        method="GET",
        path="/livez",
        handler=alive,
        tag="System",
        summary="Does the server answer?",
        description="200 also while the model loads, the engine is replaced or Redis is away: no reason to kill it.",
        response=Alive,
        needs_key=False,
    ),
    Operation(
        method="GET",
        path="/metrics",
        handler=metrics,
        tag="System",
        summary="Prometheus metrics",
        description="Of all sessions together, so a key with a prefix gets 403.",
        tells_all=True,
        content_types=("text/plain; version=0.0.4",),
    ),
    Operation(
        method="GET",
        path="/openapi.json",
        handler=openapi_document,
        tag="System",
        summary="This API as OpenAPI 3.1",
        content_types=("application/json",),
    ),
    Operation(
        method="GET",
        path="/docs",
        handler=docs,
        tag="System",
        summary="This API as a page",
        content_types=("text/html",),
        statuses=UNCHANGED,
    ),
    Operation(
        method="GET",
        path="/docs/docs.css",
        handler=docs_style,
        tag="System",
        summary="The page's style sheet",
        content_types=("text/css",),
        statuses=UNCHANGED,
    ),
    Operation(
        method="GET",
        path="/docs/docs.js",
        handler=docs_script,
        tag="System",
        summary="The page's script",
        content_types=("text/javascript",),
        statuses=UNCHANGED,
    ),
)
