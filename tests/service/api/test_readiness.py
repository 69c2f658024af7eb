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
                # What the store tells of is known before the model is there.
                stored = method == "GET" and path
                assert (await call(client, method, f"/v1/sessions/some{path}", body))[0] == (404 if stored else 503)
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


class Engines:
    """One engine after another: ``made`` are all there were. The second and later ones wait to be let."""

    def __init__(self) -> None:
        self.made: list[FastEngine] = []
        self.may_load = threading.Event()

    def load(self) -> FastEngine:
        assert not self.made or self.may_load.wait(30)
        self.made.append(FastEngine())
        return self.made[-1]


@pytest.fixture
async def mortal(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Engines]]:
    """A ready application, and its engines."""
    monkeypatch.setattr("streams.engine.supervisor._FIRST_PAUSE", 0.0)
    monkeypatch.setattr("flashquery.waves._AGAIN_SECONDS", 0.0)
    engines = Engines()
    async with starting(redis, tmp_path, engines.load) as client:
        try:
            await until(lambda: client.app[CORE].up)
            yield client, engines
        finally:
            engines.may_load.set()


async def test_while_an_engine_is_replaced_answers_stay_and_data_is_taken(
    mortal: tuple[apps.Client, Engines],
) -> None:
    client, engines = mortal
    session_id = await create(client, flash=[{"query": "Hot?", "max_tokens": 1}])
    path = f"/v1/sessions/{session_id}"
    await ok(client, "POST", f"{path}/push", {"data": "x"})
    (before,) = await answered(client, session_id)
    engines.made[0].kill()
    status, health = await call(client, "GET", "/health")
    assert (status, health["status"], health["engine"], health["sessions"]) == (503, "unavailable", "restarting", 1)
    for body in ({"prompt": "Something else?"}, {"prompt": "Something else?", "stream": True}):
        async with client.post(f"{path}/generate", json=body) as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["error"]["code"] == "engine_unavailable"
    assert (await ok(client, "GET", f"{path}/flash"))["data"] == [before]
    hit = await ok(client, "POST", f"{path}/generate", {"prompt": "Hot?"})
    assert (hit["flash"], hit["text"]) == (True, before["value"])
    ack = await ok(client, "POST", f"{path}/push", {"data": "y"})
    other = await create(client)
    await ok(client, "POST", f"/v1/sessions/{other}/push", {"data": "z"})
    state = await ok(client, "GET", path)
    assert (state["data_version"], state["pending"], state["kv_tokens"]) == (1, 1, 0)
    engines.may_load.set()
    (after,) = (await ok(client, "GET", f"{path}/flash?after={ack['total_pushed']}&wait=20"))["data"]
    assert after["data_version"] == 2
    assert (await ok(client, "GET", "/health"))["status"] == "ok"
    assert (await ok(client, "POST", f"{path}/generate", {"prompt": "Something else?"}))["data_version"] == 2
    await apps.settled(client, other)
    await ok(client, "DELETE", path)


async def test_what_an_engine_that_dies_was_reading_the_next_one_reads(mortal: tuple[apps.Client, Engines]) -> None:
    client, engines = mortal
    session_id = await create(client)
    engines.made[0].ingest_gate.clear()
    ack = await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "x"})
    waiting = asyncio.create_task(
        call(client, "POST", f"/v1/sessions/{session_id}/generate", {"prompt": "x?", "after": ack["total_pushed"]})
    )
    await until(lambda: client.app[METRICS].connections and engines.made[0].calls)
    engines.made[0].kill()
    engines.may_load.set()
    status, reply = await waiting
    assert (status, reply["data_version"]) == (200, 1)
