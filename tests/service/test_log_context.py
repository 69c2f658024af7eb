"""Lines of the log say which request and which session they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from streams import keys
from streams.context import REQUEST
from streams.errors import EngineUnavailable
from streams.window import Window
from tests import apps
from tests.apps import core, ok, settled, until
from tests.engine.fast import FastEngine
from tests.servers import FAST, serving
from tests.service.conftest import Lines
from tests.streams import server as streams


async def test_a_request_is_a_line_at_debug(
    client: apps.Client, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "service.access")
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    headers = {"X-Request-Id": "mine-1"}
    await ok(client, "GET", "/v1/sessions/s/stats?over=stream", headers=headers)
    await until(lambda: lines("GET /v1/sessions/{id}/stats"))
    (line,) = lines("GET /v1/sessions/{id}/stats")
    told = {name: line[name] for name in ("method", "route", "status", "client", "request_id", "session_id")}
    assert told == {
        "method": "GET",
        "route": "/v1/sessions/{id}/stats",
        "status": 200,
        "client": "127.0.0.1",
        "request_id": "mine-1",
        "session_id": "s",
    }
    assert line["seconds"] > 0
    (created,) = lines("POST /v1/sessions:")
    assert created["session_id"] == "s"
    # Nothing is done for a poll that passes by.
    await ok(client, "GET", "/v1/sessions/s/flash")
    assert not lines("/flash")


async def test_what_the_server_fails_at_is_a_line_at_info(
    client: apps.Client, engine: FastEngine, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.kill()
    async with client.post("/v1/sessions/s/generate", json={"prompt": "Hot?"}) as response:
        assert response.status == 503
    await until(lambda: lines("generate: 503"))
    (line,) = lines("generate: 503")
    assert line["request_id"] == response.headers["x-request-id"]
    assert line["session_id"] == "s"
    assert not lines("POST /v1/sessions:")
    # Who waits until it is ready asks again and again.
    async with client.get("/health") as response:
        assert response.status == 503
    assert not lines("GET /health:")
    # The engine's own life is nobody's request.
    await until(lambda: lines("the engine has died"))
    (line,) = lines("the engine has died")
    assert not line.keys() & {"request_id", "session_id"}


async def test_what_a_session_does_on_its_own_is_no_request_s(
    client: apps.Client, engine: FastEngine, lines: Lines
) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.reading_error = EngineUnavailable("not now")
    await ok(client, "POST", "/v1/sessions/s/push", {"data": "1"})
    await until(lambda: lines("was not read to its end"))
    line = lines("was not read to its end")[0]
    assert (line["session_id"], "request_id" in line) == ("s", False)
    engine.reading_error = None


async def test_a_window_that_cannot_move_is_its_session_s(
    client: apps.Client, engine: FastEngine, lines: Lines
) -> None:
    manager = core(client).manager
    token = REQUEST.set("req_1")
    session = await manager.create("s", window=Window(seconds=0.3))
    await manager.push(session, ["a"])
    REQUEST.reset(token)
    await settled(client, "s")
    engine.reading_error = ValueError("a bug")
    await until(lambda: lines("the window of session s cannot move"))
    (line,) = lines("the window of session s cannot move")
    assert (line["session_id"], "request_id" in line) == ("s", False)


async def test_an_evaluation_that_fails_is_its_session_s(client: apps.Client, engine: FastEngine, lines: Lines) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [{"query": "Hot?"}]})
    engine.generate_gate.clear()
    await ok(client, "POST", "/v1/sessions/s/push", {"data": "1"})
    await until(lambda: engine.running)
    engine.kill()
    await until(lambda: lines("evaluating session s failed"))
    (line,) = lines("evaluating session s failed")
    assert (line["session_id"], "request_id" in line) == ("s", False)


async def test_a_session_that_cannot_come_back_is_named(redis: Redis, lines: Lines) -> None:
    async with streams.serving(redis) as server:
        for name in ("a", "b"):
            await server.manager.create(name)
    for name in ("a", "b"):
        stored = await redis.hget(keys.meta(name), "options")
        assert stored is not None
        await redis.hset(keys.meta(name), "options", stored.replace(b"fast", b"slow"))
    async with streams.serving(redis):
        told = lines("stays as it is in Redis")
    assert sorted(line["session_id"] for line in told) == ["a", "b"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_server_s_lines_say_so_in_both_formats(tmp_path: Path, log_format: str) -> None:
    with serving(FAST, tmp_path, "--log-level", "debug", "--log-format", log_format) as server:
        headers = {"X-Request-Id": "mine-1"}
        httpx.post(f"{server.url}/v1/sessions", json={"id": "s"}, headers=headers).raise_for_status()
    (line,) = [line for line in server.lines if "POST /v1/sessions:" in line]
    if log_format == "json":
        told = json.loads(line)
        assert (told["level"], told["request_id"], told["session_id"]) == ("DEBUG", "mine-1", "s")
        assert "trace_id" not in told
    else:
        assert line.endswith("[request_id=mine-1 session_id=s]")
