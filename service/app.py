"""The application and its life: parts are opened in order, and closed in reverse."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial

import orjson
from aiohttp import web
from redis.asyncio import Redis

from service import edge
from service.access.clients import Clients
from service.api.chat import routes as chat
from service.api.entries import routes as entries
from service.api.events import routes as events
from service.api.flash import routes as flash
from service.api.legacy import routes as legacy
from service.api.messages import routes as messages
from service.api.models import routes as models
from service.api.models.protocol import ModelCard
from service.api.sessions import routes as sessions
from service.api.system import routes as system
from service.budget import BodyBudget
from service.core import CORE, Core
from service.dashboard import routes as dashboard
from service.engine import engine_options, resolved_model
from service.keys import BODIES, CLIENTS, METRICS, MODEL_CARD, OPENAPI, REDIS, SETTINGS, SUPERVISOR
from service.lane import open_lane
from service.metrics import Metrics
from service.openapi import add_routes, build, keyless
from service.peers import PEERS, Peers
from service.replica import identity
from service.settings import Settings
from service.valkey import embedded_valkey
from streams.engine import choose
from streams.engine.base import Engine
from streams.engine.supervisor import Supervisor
from streams.engine.vllm import EngineOptions
from streams.errors import AskaheadError, Unavailable
from streams.leases import Replica
from streams.models import DEFAULT_MODEL
from streams.store import connect
from streams.store_check import warn_of_loss

log = logging.getLogger(__name__)

OPERATIONS = (
    *sessions.OPERATIONS,
    *entries.OPERATIONS,
    *flash.OPERATIONS,
    *events.OPERATIONS,
    *chat.OPERATIONS,
    *messages.OPERATIONS,
    *models.OPERATIONS,
    *legacy.OPERATIONS,
    *system.OPERATIONS,
    *dashboard.OPERATIONS,
)

Loader = Callable[[], Engine]

_DRAIN_STEP_SECONDS = 0.05
# aiohttp waits this long for requests to end, and as long again before it cancels those that did not.
_CANCEL_SECONDS = 0.5
_BACKLOG = 128


def create_app(
    settings: Settings,
    *,
    engine: Engine | Loader | None = None,
    redis: Redis | None = None,
    url: str = "",
    failed: Callable[[], None] = lambda: None,
) -> web.Application:
    """Build the application.

    Args:
        settings: everything configurable.
        engine: use this engine, or what this blocking function returns, instead of loading ``settings.model``.
        redis: use this client (returning bytes) instead of ``settings.redis_url``; the caller closes it.
        url: where other servers reach this one, unless ``settings.advertise_url`` says it.
        failed: called when the server cannot be brought up.

    Raises:
        KeysFileError: the file of keys is wrong.
    """
    metrics = Metrics(lambda: _gauges(app))
    # Bodies are read and bounded in service.bodies.
    app = web.Application(client_max_size=settings.max_body_bytes)
    app[SETTINGS] = settings
    app[METRICS] = metrics
    app[CLIENTS] = clients = Clients(settings)
    app[BODIES] = BodyBudget(settings.max_bodies_bytes)
    app[MODEL_CARD] = ModelCard(
        name=settings.model or DEFAULT_MODEL, context=settings.context or 0, created=int(time.time())
    )
    app[OPENAPI] = orjson.dumps(build(OPERATIONS, version=importlib.metadata.version("askahead")))
    add_routes(app, OPERATIONS)
    edge.install(app, settings, clients, metrics, keyless(OPERATIONS))
    app.on_response_prepare.append(models.tell_plain_template)
    app.on_shutdown.append(_drain)
    app.cleanup_ctx.append(
        partial(_parts, engine=engine, redis=redis, url=settings.advertise_url or url, failed=failed)
    )
    return app


async def _parts(
    app: web.Application,
    *,
    engine: Engine | Loader | None,
    redis: Redis | None,
    url: str,
    failed: Callable[[], None],
) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with AsyncExitStack() as stack:
        if settings.otlp_endpoint is not None:
            await stack.enter_async_context(_traces(settings.otlp_endpoint, settings.trace_sample_ratio))
        if redis is None:
            address = settings.redis_url
            if address is None:
                address = await stack.enter_async_context(
                    embedded_valkey(settings.data_dir, settings.redis_appendfsync)
                )
            redis = await stack.enter_async_context(connect(address))
            await warn_of_loss(redis)
        app[REDIS] = redis
        abort = choose.abort_load if engine is None else None
        app[SUPERVISOR] = supervisor = Supervisor(_loader(app, engine), abort=abort)
        stack.push_async_callback(supervisor.close)
        supervisor.start()
        me = Replica(stack.enter_context(identity(settings.data_dir)), url)
        app[CORE] = await stack.enter_async_context(Core(settings, supervisor, redis, me, app[METRICS], failed))
        app[PEERS] = await stack.enter_async_context(Peers(app[CORE]))
        yield


def _traces(endpoint: str, ratio: float) -> AbstractAsyncContextManager[None]:
    """What records traces and sends them. Raises Unavailable if OpenTelemetry is not installed."""
    try:
        from service.tracing import exporting
    except ImportError as error:
        raise Unavailable(
            f"--otlp-endpoint needs OpenTelemetry ({error.name} is missing): pip install 'askahead[tracing]', or leave"
            " the setting out"
        ) from error
    return exporting(endpoint, ratio)


def _loader(app: web.Application, engine: Engine | Loader | None) -> Loader:
    """What the supervisor runs in a thread to get an engine, and another when that has died."""
    card = app[MODEL_CARD]
    again: EngineOptions | None = None

    def load() -> Engine:
        nonlocal again
        loaded = engine() if callable(engine) else engine or _load_model(app[SETTINGS], card, again)
        if isinstance(loaded, choose.LoadedEngine):
            again = loaded.again
        card.loaded(loaded)
        return loaded

    return load


def _load_model(settings: Settings, card: ModelCard, again: EngineOptions | None) -> Engine:
    """Load the model as the settings say, or as it was loaded before."""
    if again is not None:
        return choose.load(again)
    resolved = resolved_model(settings)
    card.name, card.level = resolved.name, resolved.level
    log.info("loading %s", resolved.name)
    return choose.load(engine_options(settings, resolved))


def _gauges(app: web.Application) -> dict[str, float]:
    core = app[CORE]
    if not core.begun:
        return {}
    manager, block = core.manager, core.manager.engine.facts.block_size
    return {
        "engine_ready": app[SUPERVISOR].state == "ready",
        "store_away": core.journal.failing,
        "queued": manager.questions.waiting,
        "running": manager.questions.running,
        "kv_pages_total": manager.budget.capacity // block,
        "kv_pages_free": (manager.budget.capacity - manager.budget.granted) // block,
        **manager.residency(),
    }


async def _drain(app: web.Application) -> None:
    """End what would never end by itself, then give what runs the time the operator allows."""
    app[CORE].close_subscriptions()
    for _ in range(int(app[SETTINGS].shutdown_seconds / _DRAIN_STEP_SECONDS)):
        if not app[METRICS].connections:
            return
        await asyncio.sleep(_DRAIN_STEP_SECONDS)


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. Returns the process's exit code: 0 after a drain, 1 if the model cannot be served.

    Args:
        settings: everything configurable.
    """
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    stop, failed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)

    def fail() -> None:
        failed.set()
        stop.set()

    try:
        listening = _bind(settings)
    except OSError as error:
        log.error("cannot serve on %s port %d: %s", settings.host, settings.port, error.strerror or error)
        return 1
    url = _url(settings.host, listening.getsockname()[1])
    application = create_app(settings, url=url, failed=fail)
    if settings.api_keys_file is not None:
        loop.add_signal_handler(signal.SIGHUP, application[CLIENTS].reload)
    runner = web.AppRunner(
        application,
        handler_cancellation=True,
        # Ours is written in service.served.
        access_log=None,
        shutdown_timeout=_CANCEL_SECONDS,
        keepalive_timeout=30,
    )
    try:
        await runner.setup()
        open_lane(runner)
        await web.SockSite(runner, listening).start()
        log.info("listening on %s, loading the model", url)
        await stop.wait()
        if not failed.is_set():
            log.info("stopping: running requests get up to %g s to end", settings.shutdown_seconds)
    except AskaheadError as error:
        log.error("%s", error.message)
        failed.set()
    finally:
        await runner.cleanup()
        listening.close()
    return 1 if failed.is_set() else 0


def _bind(settings: Settings) -> socket.socket:
    """A listening socket. Raises OSError."""
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def _url(host: str, port: int) -> str:
    """Where a server that listens there is reached."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        host = socket.gethostname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
