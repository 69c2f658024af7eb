"""Traces, as a real collector receives them."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from service import tracing as exporter
from streams import tracing
from tests import apps
from tests.apps import core, ok, settled, until
from tests.engine.fast import FastEngine
from tests.servers import FAST, Server
from tests.service.collector import Collector, collecting, texts
from tests.service.conftest import Lines

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
PUSH = "POST /v1/sessions/{id}/push"


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as collector:
        yield collector


@pytest.fixture
async def client(
    redis: Redis, tmp_path: Path, engine: FastEngine, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[apps.Client]:
    """An application that sends its spans soon, of which none begins a trace of its own accord."""
    monkeypatch.setattr(exporter, "_SEND_SECONDS", 0.02)
    async with apps.serving(redis, tmp_path, engine, otlp_endpoint=collector.url, trace_sample_ratio=0) as client:
        yield client


async def test_a_push_is_followed_to_the_answer(collector: Collector, tmp_path: Path) -> None:
    server = Server((*FAST, "--port", "0", "--data-dir", str(tmp_path), "--otlp-endpoint", collector.url), {})
    try:
        await asyncio.to_thread(server.wait_ready, 30)
        async with aiohttp.ClientSession(server.url) as http:
            await http.post("/v1/sessions", json={"id": "s", "flash": [{"query": "Hot?"}]})
            async with http.get("/v1/sessions/s/events") as events:
                await http.post("/v1/sessions/s/push", json={"data": ["1", "2"]}, headers=TRACED)
                async for line in events.content:
                    if line.startswith(b"event: flash_ready"):
                        break
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.lines

    push = await collector.one(PUSH)
    assert (push.trace, push.parent, push.kind) == (TRACE, CALLER, "server")
    assert push.attributes["http.request.method"] == "POST"
    assert push.attributes["http.route"] == "/v1/sessions/{id}/push"
    assert push.attributes["http.response.status_code"] == 200
    assert (await collector.of("redis commit", push)).attributes["db.system.name"] == "redis"
    batch = await collector.of("batch", push)
    assert (batch.attributes["askahead.entries"], batch.links) == (2, [])
    assert batch.attributes["gen_ai.conversation.id"] == "s"
    prefill = await collector.of("prefill", batch)
    # The template's head comes before the first data.
    assert prefill.attributes["askahead.resident_tokens"] == 0
    assert prefill.attributes["gen_ai.usage.input_tokens"] > batch.attributes["askahead.tokens"] > 0
    await collector.of("redis commit", batch)
    await collector.of("deliver data_updated", batch)
    wave = await collector.of("flash wave", batch)
    assert wave.attributes["askahead.evaluations"] == 1
    query = await collector.of("flash query", wave)
    generation = await collector.of("text_completion fast", query)
    assert generation.attributes["gen_ai.request.model"] == "fast"
    assert generation.attributes["gen_ai.usage.output_tokens"] > 0
    assert generation.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    await collector.of("redis commit", query)
    assert (await collector.of("deliver flash_ready", query)).kind == "producer"
    assert collector.resource["service.name"] == "askahead"
    assert not any(span.failed for span in collector.spans)


async def test_a_batch_links_to_the_other_pushes_in_it(
    client: apps.Client, collector: Collector, engine: FastEngine
) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    backlog = core(client).manager.get("s").backlog
    engine.ingest_gate.clear()
    for number, flags in enumerate(("00", "00", "01", "01", "00", "01")):
        parent = {"traceparent": f"00-{number + 1:032x}-{CALLER}-{flags}"}
        await ok(client, "POST", "/v1/sessions/s/push", {"data": str(number)}, headers=parent)
        await until(lambda: backlog.batch)
    engine.ingest_gate.set()
    await settled(client, "s")
    batch = await collector.one("batch")
    pushes = collector.named(PUSH)
    assert [int(push.trace, 16) for push in pushes] == [3, 4, 6]
    assert (batch.trace, batch.parent) == (pushes[0].trace, pushes[0].id)
    assert batch.links == [(push.trace, push.id) for push in pushes[1:]]


async def test_a_push_over_a_socket_has_a_trace_of_its_own(
    redis: Redis, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_SEND_SECONDS", 0.02)
    async with apps.serving(redis, tmp_path, otlp_endpoint=collector.url) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        async with client.ws_connect("/v1/sessions/s/ws", headers=TRACED) as socket:
            await socket.send_json({"type": "push", "data": "1"})
            await socket.send_json({"type": "push", "data": ["2", 3]})
            await collector.one("batch")
        connection = await collector.one("GET /v1/sessions/{id}/ws")
    (push,) = collector.named("push")
    assert (connection.trace, connection.attributes["http.response.status_code"]) == (TRACE, 101)
    assert (push.parent, push.kind, push.links) == ("", "server", [(connection.trace, connection.id)])
    batch = await collector.one("batch")
    assert (batch.trace, batch.parent) == (push.trace, push.id)
    await collector.of("redis commit", push)


async def test_a_question_tells_its_first_token(client: apps.Client, collector: Collector) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    await ok(client, "POST", "/v1/sessions/s/push", {"data": "1"})
    await settled(client, "s")
    question = {"prompt": "Hot?", "max_tokens": 3}
    reply = await ok(client, "POST", "/v1/sessions/s/generate", question, headers=TRACED)
    asked = await collector.one("POST /v1/sessions/{id}/generate")
    generation = await collector.of("text_completion fast", asked)
    assert generation.attributes["gen_ai.request.max_tokens"] == 3
    assert generation.attributes["gen_ai.usage.input_tokens"] == reply["usage"]["prompt_tokens"]
    assert generation.attributes["gen_ai.usage.output_tokens"] == reply["usage"]["completion_tokens"]
    first = generation.attributes["gen_ai.response.time_to_first_chunk"]
    assert isinstance(first, float)
    assert first > 0
    # What was asked and said is the client's business.
    assert not any("Hot?" in text or reply["text"] in text for text in texts(collector.spans))


async def test_a_turn_is_traced_to_the_wave_that_it_causes(client: apps.Client, collector: Collector) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [{"query": "Hot?"}]})
    turn = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    headers = {**TRACED, "x-layerscale-session-id": "s"}
    await ok(client, "POST", "/v1/chat/completions", turn, headers=headers)
    asked = await collector.one("POST /v1/chat/completions")
    wave = await collector.of("flash wave", asked)
    await collector.of("flash query", wave)


async def test_what_fails_is_marked(client: apps.Client, collector: Collector, engine: FastEngine) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.kill()
    async with client.post("/v1/sessions/s/generate", json={"prompt": "Hot?"}, headers=TRACED) as response:
        assert response.status == 503
    asked = await collector.one("POST /v1/sessions/{id}/generate")
    assert (asked.failed, asked.attributes["error.type"]) == (True, "503")
    async with client.get("/v1/sessions/none", headers=TRACED) as response:
        assert response.status == 404
    refused = await collector.one("GET /v1/sessions/{id}")
    assert (refused.failed, refused.attributes["http.response.status_code"]) == (False, 404)


@pytest.mark.parametrize(
    "given", ["", "x", f"00-{TRACE}-{CALLER}", f"00-{'0' * 32}-{CALLER}-01", f"ff-{TRACE}-{CALLER}-01", "0" * 8000]
)
async def test_what_is_no_parent_begins_a_trace(
    redis: Redis, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr(exporter, "_SEND_SECONDS", 0.02)
    async with apps.serving(redis, tmp_path, otlp_endpoint=collector.url) as client:
        await ok(client, "GET", "/v1/models", headers={"traceparent": given})
        span = await collector.one("GET /v1/models")
    assert (span.parent, span.trace != TRACE) == ("", True)


async def test_lines_of_the_log_name_the_trace(
    client: apps.Client, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "service.access")
    await ok(client, "GET", "/v1/models", headers=TRACED)
    await until(lambda: lines("GET /v1/models"))
    (line,) = lines("GET /v1/models")
    assert line["trace_id"] == TRACE


async def test_headers_and_names_are_the_exporters_own_variables(
    redis: Redis, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YTpi")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "plant")
    async with apps.serving(redis, tmp_path, otlp_endpoint=collector.url) as client:
        await ok(client, "GET", "/v1/models")
    await collector.one("GET /v1/models")
    assert collector.headers["authorization"] == "Basic YTpi"
    assert collector.resource["service.name"] == "plant"


async def test_what_finds_no_room_is_left_out(collector: Collector) -> None:
    collector.open.clear()
    async with exporter.exporting(collector.url, 1):
        for _ in range(10_000):
            tracing.start("span", {}).end()
        collector.open.set()
        await until(lambda: len(collector.spans) >= exporter._QUEUE_SPANS)
    # What was on its way had left the queue.
    assert len(collector.spans) <= exporter._QUEUE_SPANS + exporter._SENT_SPANS


@pytest.mark.parametrize("dead", ["refuses", "is silent", "fails"])
async def test_a_dead_collector_disturbs_nothing(collector: Collector, tmp_path: Path, dead: str) -> None:
    url = collector.url
    with socket.create_server(("127.0.0.1", 0)) as closed:
        if dead == "refuses":
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    if dead == "is silent":
        collector.open.clear()
    collector.status = 400
    server = Server((*FAST, "--port", "0", "--data-dir", str(tmp_path), "--otlp-endpoint", url), {})
    try:
        await asyncio.to_thread(server.wait_ready, 30)
        async with aiohttp.ClientSession(server.url) as http:
            await http.post("/v1/sessions", json={"id": "s", "flash": [{"query": "Hot?"}]})
            for number in range(50):
                async with http.post("/v1/sessions/s/push", json={"data": str(number)}) as response:
                    assert response.status == 200
            async with http.get("/v1/sessions/s/flash?wait=10") as response:
                (query,) = (await response.json())["data"]
                assert query["fresh"]
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.lines
    told = [line for line in server.lines if "traces do not arrive" in line or "collector does not answer" in line]
    assert 1 <= len(told) <= 2, server.lines
    assert not [line for line in server.lines if "Traceback" in line or "opentelemetry" in line]


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from service.cli import main
main.app()
"""


def test_without_the_extra_the_server_says_what_to_install(tmp_path: Path) -> None:
    flags = ("serve", "--port", "0", "--data-dir", str(tmp_path), "--otlp-endpoint", "http://localhost:4318")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *flags], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "pip install 'askahead[tracing]'" in line


def test_nothing_of_it_is_imported_unless_it_is_wanted() -> None:
    # Redis's client looks for metrics of OpenTelemetry's by itself; what records and sends spans is ours to import.
    script = (
        "import sys, service.app; ours = ('opentelemetry.sdk.trace', 'opentelemetry.exporter'); "
        "print([name for name in sys.modules if name.startswith(ours)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
