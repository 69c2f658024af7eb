from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from redis.asyncio import Redis

from service import keys
from service.api.system.protocol import Health
from service.api.system.routes import OPERATIONS
from service.core import CORE, Core
from service.openapi import add_routes, build, keyless
from streams.engine.supervisor import Supervisor
from streams.errors import EngineUnavailable, ModelError
from tests.apps import until
from tests.engine.fast import FastEngine
from tests.flashquery.kit import ME
from tests.service.edge import edge_app, serving

DOCUMENT = build(OPERATIONS, version="1.2.3")

PUBLISHED = frozenset(
    {
        "status",
        "uptime_ms",
        "queued",
        "running",
        "kv_pages_total",
        "kv_pages_free",
        "connections",
        "steps",
        "preemptions",
        "graph_captures",
        "requests_started",
        "requests_ok",
        "requests_failed",
        "requests_cancelled",
        "prompt_tokens",
        "generated_tokens",
        "sessions",
        "session_turns",
        "prefix_cached_tokens",
        "prefix_window_miss_tokens",
        "session_cached_tokens",
        "session_snapshot_evictions",
        "session_ingested_tokens",
        "session_warm_turns",
        "session_warmed_tokens",
        "session_flash_hits",
        "session_ready_exits",
        "tool_calls_malformed",
        "tool_calls_recovered",
        "tool_calls_jump_forward",
        "tool_calls_forced_tokens",
        "session_call_turns_exact",
        "session_call_turns_diverged",
    }
)


async def _supervisor(state: str) -> Supervisor:
    """A supervisor brought into a state."""
    engine = FastEngine()

    def load() -> FastEngine:
        if state == "failed":
            raise ModelError("no such model")
        return engine

    supervisor = Supervisor(load)
    if state != "loading":
        supervisor.start()
        with contextlib.suppress(EngineUnavailable):
            await supervisor.wait_ready()
    if state == "restarting":
        engine.kill()
    assert supervisor.state == state
    return supervisor


async def _app(redis: Redis, state: str) -> web.Application:
    app = edge_app([], keyless(OPERATIONS), api_key="secret")
    app[keys.SUPERVISOR] = supervisor = await _supervisor(state)
    app[keys.REDIS] = redis
    app[CORE] = core = Core(app[keys.SETTINGS], supervisor, redis, ME, app[keys.METRICS])

    async def run(_: web.Application) -> AsyncIterator[None]:
        async with core:
            await until(lambda: core.up or state != "ready")
            yield
        await supervisor.close()

    app.cleanup_ctx.append(run)
    app[keys.OPENAPI] = orjson.dumps(DOCUMENT)
    add_routes(app, OPERATIONS)
    return app


@pytest.fixture
async def client(redis: Redis) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with serving(await _app(redis, "ready")) as running:
        running.session.headers["x-api-key"] = "secret"
        yield running


@pytest.mark.parametrize("path", ["/health", "/healthz"])
@pytest.mark.parametrize(
    ("state", "status", "word"),
    [
        ("ready", 200, "ok"),
        ("loading", 503, "unavailable"),
        ("failed", 503, "unavailable"),
        ("restarting", 503, "unavailable"),
    ],
)
async def test_health_has_one_shape_in_every_state(redis: Redis, path: str, state: str, status: int, word: str) -> None:
    app = await _app(redis, state)
    app[keys.METRICS].counters.session_flash_hits += 5
    async with serving(app) as running:
        response = await running.get(path)
        assert response.status == status
        body = await response.json()
        assert (body["status"], body["engine"], body["store"]) == (word, state, "ok")
        assert set(body) >= PUBLISHED
        assert all(isinstance(body[name], int) for name in PUBLISHED if name != "status")
        assert body["session_flash_hits"] == 5
        assert set(body) == set(Health.model_fields)


async def test_a_store_that_is_away_degrades_and_is_noticed(redis: Redis, tmp_path: Path) -> None:
    app = await _app(redis, "ready")
    async with Redis(unix_socket_path=str(tmp_path / "none.sock")) as away:
        app[keys.REDIS] = away
        async with serving(app) as running:
            response = await running.get("/health")
            assert response.status == 200
            assert (await response.json())["store"] == "degraded"


@pytest.mark.parametrize("state", ["ready", "loading", "failed", "restarting"])
async def test_a_server_that_answers_is_alive_in_every_state(redis: Redis, tmp_path: Path, state: str) -> None:
    app = await _app(redis, state)
    async with Redis(unix_socket_path=str(tmp_path / "none.sock")) as away:
        app[keys.REDIS] = away
        async with serving(app) as running:
            response = await running.get("/livez")
            assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_metrics_are_prometheus_text(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    text = await response.text()
    assert "askahead_session_flash_hits_total 0.0" in text
    assert "askahead_uptime_seconds" in text


async def test_all_but_health_needs_the_key(redis: Redis) -> None:
    async with serving(await _app(redis, "ready")) as running:
        for operation in OPERATIONS:
            response = await running.get(operation.path)
            assert response.status == (401 if operation.needs_key else 200), operation.path


async def test_the_document_is_served(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.get("/openapi.json")
    assert response.content_type == "application/json"
    assert await response.json() == DOCUMENT


async def test_the_page_runs_nothing_from_elsewhere(client: TestClient[web.Request, web.Application]) -> None:
    for path, content_type in (
        ("/docs", "text/html"),
        ("/docs/docs.css", "text/css"),
        ("/docs/docs.js", "text/javascript"),
    ):
        response = await client.get(path)
        assert response.status == 200
        assert response.content_type == content_type
        policy = response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
    page = await (await client.get("/docs")).text()
    assert "http" not in page
    assert "<style" not in page
    assert " style=" not in page
