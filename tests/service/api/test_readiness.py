"""Before the model is loaded, when it cannot be, and after its engine has died."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from redis.asyncio import Redis

from service.app import create_app
from service.core import CORE
from service.keys import METRICS
from service.settings import Settings
from streams.errors import ModelError
from tests import apps
from tests.apps import answered, call, ok, until
from tests.engine.fast import FastEngine

PATHS = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("POST", "/push", {"data": "x"}),
    ("POST", "/generate", {"prompt": "x"}),
    ("POST", "/flash", {"query": "x"}),
    ("GET", "/flash", None),
    ("GET", "/flash/1", None),
    ("DELETE", "/flash/1", None),
    ("GET", "/events", None),
    ("GET", "/ws", None),
]


async def create(client: apps.Client, **body: Any) -> str:
    session_id: str = (await ok(client, "POST", "/v1/sessions", body))["id"]
    return session_id


@asynccontextmanager
async def starting(
    redis: Redis, data_dir: Path, loader: Callable[[], FastEngine], **options: Any
) -> AsyncIterator[apps.Client]:
    """A client of an application that may not be ready."""
    app: web.Application = create_app(Settings(data_dir=data_dir), engine=loader, redis=redis, **options)
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_while_the_model_loads_only_what_needs_it_is_refused(redis: Redis, tmp_path: Path) -> None:
    may_load = threading.Event()
    made = FastEngine()

    def load() -> FastEngine:
        assert may_load.wait(30)
        return made

    async with starting(redis, tmp_path, load) as client:
        try:
            status, health = await call(client, "GET", "/health")
            assert (status, health["status"], health["engine"]) == (503, "unavailable", "loading")
            assert (await ok(client, "GET", "/v1/models"))["data"][0]["object"] == "model"
            for method in ("POST", "GET"):
                async with client.request(method, "/v1/sessions") as response:
                    assert response.status == 503
                    assert int(response.headers["Retry-After"]) > 0
                    assert (await response.json())["error"]["code"] == "engine_unavailable"
            for method, path, body in PATHS:
                assert (await call(client, method, f"/v1/sessions/some{path}", body))[0] == 503
        finally:
            may_load.set()
        await until(lambda: client.app[CORE].up)
        assert (await ok(client, "GET", "/health"))["status"] == "ok"
        assert (await ok(client, "GET", "/v1/models"))["first_id"] == "fast"
        await create(client)


async def test_a_model_that_cannot_be_loaded_ends_the_server(redis: Redis, tmp_path: Path) -> None:
    failed = asyncio.Event()

    def load() -> FastEngine:
        raise ModelError("there is no such model")

    async with starting(redis, tmp_path, load, failed=failed.set) as client:
        await asyncio.wait_for(failed.wait(), 10)
        status, health = await call(client, "GET", "/health")
        assert (status, health["engine"]) == (503, "failed")
        assert (await call(client, "POST", "/v1/sessions", {}))[0] == 503


async def test_an_unreachable_redis_ends_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flashquery.events._START_SECONDS", 0.01)
    failed = asyncio.Event()
    async with (
        Redis(unix_socket_path=str(tmp_path / "none.sock")) as away,
        starting(away, tmp_path, FastEngine, failed=failed.set),
    ):
        await asyncio.wait_for(failed.wait(), 10)
    assert "Redis does not answer" in caplog.text


async def test_with_a_dead_engine_answers_stay_and_the_rest_is_refused(client: apps.Client, engine: FastEngine) -> None:
    session_id = await create(client, flash=[{"query": "Hot?", "max_tokens": 1}])
    path = f"/v1/sessions/{session_id}"
    await ok(client, "POST", f"{path}/push", {"data": "x"})
    (before,) = await answered(client, session_id)
    engine.kill()
    status, health = await call(client, "GET", "/health")
    assert (status, health["status"], health["engine"]) == (503, "unavailable", "dead")
    for method, where, body in [
        ("POST", "/v1/sessions", {}),
        ("POST", f"{path}/push", {"data": "x"}),
        ("POST", f"{path}/generate", {"prompt": "Something else?"}),
        ("POST", f"{path}/generate", {"prompt": "Something else?", "stream": True}),
    ]:
        async with client.request(method, where, json=body) as response:
            assert response.status == 503, where
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["error"]["code"] == "engine_unavailable"
    assert (await ok(client, "GET", path))["data_version"] == 1
    assert (await ok(client, "GET", f"{path}/flash"))["data"] == [before]
    hit = await ok(client, "POST", f"{path}/generate", {"prompt": "Hot?"})
    assert (hit["flash"], hit["text"]) == (True, before["value"])
    await ok(client, "DELETE", path)


async def test_an_engine_that_dies_while_it_reads_fails_only_what_waits(
    client: apps.Client, engine: FastEngine
) -> None:
    session_id = await create(client)
    engine.ingest_gate.clear()
    ack = await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    waiting = asyncio.create_task(call(client, "GET", f"/v1/sessions/{session_id}/flash?after={ack['total_pushed']}"))
    await until(lambda: client.app[METRICS].connections and engine.calls)
    engine.kill()
    status, reply = await waiting
    assert (status, reply["error"]["code"]) == (503, "session_ended")
    assert (await ok(client, "GET", f"/v1/sessions/{session_id}"))["data_version"] == 0
