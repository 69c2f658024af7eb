"""The main job of the whole server over a recurrent model's file: push, question, Flash Query, versions."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.models import rwkv_toy
from tests.servers import REAL, Server, serving

QUESTION = {"prompt": "Is it rising?", "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("recurrent")
    model = rwkv_toy.build(home / "toy.gguf")
    with serving(REAL, home / "data", "--model", str(model), "--context", "2048", "--threads", "1") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def push(client: httpx.Client, session: str, *lines: str) -> None:
    for line in lines:
        version = ok(client.get(f"/v1/sessions/{session}"))["data_version"]
        ok(client.post(f"/v1/sessions/{session}/push", json={"data": line}))
        until(lambda before=version: ok(client.get(f"/v1/sessions/{session}"))["data_version"] > before)  # type: ignore[misc]


def flash(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    queries: list[dict[str, Any]] = ok(client.get(f"/v1/sessions/{session}/flash?wait=10"))["data"]
    return queries


def answer(client: httpx.Client, session: str) -> tuple[str, int]:
    reply = ok(client.post(f"/v1/sessions/{session}/generate", json=QUESTION))
    return reply["text"], reply["data_version"]


def test_answers_follow_the_data_and_depend_on_nothing_else(client: httpx.Client) -> None:
    ok(client.post("/v1/sessions", json={"id": "one"}))
    ok(client.post("/v1/sessions/one/flash", json={"query": "Up or down?", "max_tokens": 4}))
    said = []
    for number, line in enumerate(["09:00 c=11", "09:01 c=14", "09:02 c=16"], 1):
        push(client, "one", line)
        said.append(answer(client, "one"))
        assert said[-1][1] == number
        assert answer(client, "one") == said[-1]
        until(lambda: flash(client, "one")[0]["fresh"])
        (query,) = flash(client, "one")
        assert query["data_version"] == number
    assert len({text for text, _ in said}) > 1
    # The same data, pushed at once and read in one go, is the same stream.
    ok(client.post("/v1/sessions", json={"id": "two"}))
    push(client, "two", "09:00 c=11\n09:01 c=14\n09:02 c=16")
    assert answer(client, "two")[0] == said[-1][0]


def test_the_model_is_told_of(client: httpx.Client) -> None:
    listed = ok(client.get("/v1/models"))
    (model,), server = listed["data"], listed["server"]
    assert (model["reasoning"], model["chat_template"], model["context"]) == (False, "model", 2048)
    told = server["model"]
    assert (told["layers"], told["hidden_size"], told["kv_cache_type"]) == (rwkv_toy.LAYERS, rwkv_toy.HIDDEN, "fp32")
    assert told["size_bytes"] > told["params"] > 0
    assert (server["scheduler"]["batch_tokens"], server["accelerators"]) == (512, [])


def test_standing_questions_obey_their_schema_and_choose_among_choices(client: httpx.Client) -> None:
    ok(client.post("/v1/sessions", json={"id": "three"}))
    schema = {"type": "object", "properties": {"rising": {"type": "boolean"}}, "required": ["rising"]}
    asked = (
        {"query": "Rising?", "schema": schema, "max_tokens": 40},
        {"query": "Way?", "choices": ["up", "down", "flat"]},
    )
    for query in asked:
        ok(client.post("/v1/sessions/three/flash", json=query))
    push(client, "three", "09:00 c=11")
    until(lambda: all(query["fresh"] for query in flash(client, "three")))
    held, chosen = flash(client, "three")
    assert held["value"] in ('{"rising":true}', '{"rising":false}')
    assert chosen["value"] in ("up", "down", "flat")
    assert set(chosen["probabilities"]) == {"up", "down", "flat"}


def test_a_killed_model_is_loaded_again_and_says_the_same(client: httpx.Client, server: Server) -> None:
    ok(client.post("/v1/sessions", json={"id": "four"}))
    push(client, "four", "09:00 c=11", "09:01 c=14")
    before = answer(client, "four")
    os.kill(model_process(server), signal.SIGKILL)
    until(lambda: client.get("/health").status_code == 503)
    until(lambda: client.get("/health").status_code == 200)
    assert answer(client, "four") == before


def test_a_server_that_is_stopped_while_it_loads_ends_well(tmp_path: Path) -> None:
    model = rwkv_toy.build(tmp_path / "toy.gguf")
    server = Server((*REAL, "--port", "0", "--data-dir", str(tmp_path / "data"), "--model", str(model)), {})
    until(lambda: bool(server.url))
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop() == 0
    assert not psutil.wait_procs(children, timeout=5)[1]


def test_the_model_does_not_outlive_a_killed_server(tmp_path: Path) -> None:
    model = rwkv_toy.build(tmp_path / "toy.gguf")
    server = Server((*REAL, "--port", "0", "--data-dir", str(tmp_path / "data"), "--model", str(model)), {})
    server.wait_ready(60)
    orphan = psutil.Process(model_process(server))
    others = [child for child in psutil.Process(server.process.pid).children(recursive=True) if child != orphan]
    server.kill()
    assert not psutil.wait_procs([orphan], timeout=10)[1]
    for other in others:
        with suppress(psutil.NoSuchProcess):
            other.kill()


def model_process(server: Server) -> int:
    children = psutil.Process(server.process.pid).children(recursive=True)
    (pid,) = [child.pid for child in children if "spawn_main" in " ".join(child.cmdline())]
    return pid
