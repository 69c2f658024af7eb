"""How the server goes down: everybody is told, nothing is left behind."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
from redis.asyncio import Redis

from service.core import CORE
from tests import apps
from tests.apps import ok, settled, until
from tests.engine.fast import FastEngine
from tests.servers import FAST, Server, serving

# The server over an in-process engine whose questions never end.
FROZEN = """
from unittest import mock
from service import app
from service.cli import main
from tests.engine.fast import FastEngine

def load(settings, card, again):
    engine = FastEngine()
    engine.generate_gate.clear()
    return engine

with mock.patch.object(app, "_load_model", load):
    main.app()
"""
# The server over an engine that has stopped in the middle of what it does.
HUNG = FROZEN.replace("generate_gate.clear()", "ingest_gate.clear(), engine.release_gate.clear()")
# The server over an engine that loads until it is told to give up.
LOADING = """
import threading
from unittest import mock
from service import app
from service.cli import main
from streams.errors import ModelError

aborted = threading.Event()

def load(settings, card, again):
    aborted.wait()
    raise ModelError("given up")

with mock.patch.object(app, "_load_model", load), mock.patch.object(app.choose, "abort_load", aborted.set):
    main.app()
"""

FAILING = LOADING.replace("aborted.wait()", "")


def command(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script, "serve")


def stop(server: Server) -> None:
    """SIGTERM; it must go well and leave no process."""
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert any("valkey" in child.name() for child in children)
    assert server.stop() == 0, server.lines
    log = "\n".join(server.lines)
    assert "Traceback" not in log
    assert "ERROR" not in log
    _, alive = psutil.wait_procs(children, timeout=0)
    assert not alive


async def test_sigterm_ends_streams_sockets_and_questions(tmp_path: Path) -> None:
    with serving(command(FROZEN), tmp_path, "--shutdown-seconds", "0.5") as server:
        async with aiohttp.ClientSession(server.url) as session:
            async with session.post("/v1/sessions", json={"id": "s", "flash": [{"query": "Hot?"}]}) as created:
                assert created.status == 200
            events = await session.get("/v1/sessions/s/events")
            await events.content.readuntil(b"\n\n")
            socket = await session.ws_connect("/v1/sessions/s/ws")
            assert (await socket.receive_json())["type"] == "connected"
            questions = [{"prompt": "What?", "stream": streamed} for streamed in (False, True)]
            asking = [asyncio.create_task(session.post("/v1/sessions/s/generate", json=body)) for body in questions]
            poll = asyncio.create_task(session.get("/v1/sessions/s/flash?wait=60"))
            served = 0
            while served < 6:
                async with session.get("/health") as response:
                    served = (await response.json())["connections"]
            stopping = asyncio.create_task(asyncio.to_thread(stop, server))
            assert await events.content.read() == b""
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            async with await poll as response:
                assert response.status == 503
            for result in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(result, aiohttp.ClientError)
            await stopping
            await socket.close()


async def test_sigterm_while_the_engine_hangs(tmp_path: Path) -> None:
    with serving(command(HUNG), tmp_path) as server:
        async with aiohttp.ClientSession(server.url) as session:
            async with session.post("/v1/sessions", json={"id": "s"}) as created:
                assert created.status == 200
            async with session.post("/v1/sessions/s/push", json={"data": "never read"}) as pushed:
                assert pushed.status == 200
        assert await asyncio.to_thread(server.stop) == 0
        assert any("does not react" in line for line in server.lines)


async def test_sigterm_while_the_model_loads(tmp_path: Path) -> None:
    server = Server((*command(LOADING), "--port", "0", "--data-dir", str(tmp_path)), {})
    try:
        async with aiohttp.ClientSession() as session:
            await until(lambda: server.url, 60)
            async with session.get(f"{server.url}/health") as response:
                assert response.status == 503
        await asyncio.to_thread(stop, server)
    finally:
        server.stop()


def test_a_model_that_cannot_be_loaded_is_exit_1(tmp_path: Path) -> None:
    server = Server((*command(FAILING), "--port", "0", "--data-dir", str(tmp_path)), {})
    code = server.process.wait(60)
    server.stop()
    assert code == 1
    assert any("given up" in line for line in server.lines)
    assert not any("Traceback" in line for line in server.lines)


def test_a_server_that_was_stopped_starts_again_on_its_data(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(FAST, tmp_path) as server:
            stop(server)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_question_that_ends_in_time_is_answered(redis: Redis, tmp_path: Path, streamed: bool) -> None:
    engine = FastEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [{"query": "Hot?"}]})
        await ok(client, "POST", "/v1/sessions/s/push", {"data": "x"})
        await settled(client, "s")
        engine.generate_gate.clear()
        asking = asyncio.create_task(
            client.post("/v1/sessions/s/generate", json={"prompt": "What?", "stream": streamed})
        )
        await until(lambda: engine.running)
        poll = asyncio.create_task(client.get("/v1/sessions/s/flash?wait=60", headers={"If-None-Match": "*"}))
        await until(lambda: client.app[CORE].hub.subscribers)
        closing = asyncio.create_task(client.server.close())
        async with await poll as response:
            assert response.status == 503, "whoever only waits does not hold it up"
        engine.generate_gate.set()
        async with await asking as response:
            assert response.status == 200
            assert b"finish_reason" in await response.read()
        await closing
        assert engine.running == 0
        assert not engine.holds
