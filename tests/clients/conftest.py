"""The official client against real server processes: the same tests over the fast engine and over vLLM."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import layerscale
import pytest

from tests.servers import FAST, REAL, Server, serving


@pytest.fixture(scope="package", params=["fast", "vllm"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_path: Path
) -> Iterator[Server]:
    data_dir = tmp_path_factory.mktemp("server")
    if request.param == "fast":
        command, flags = FAST, ()
    else:
        command, flags = REAL, ("--model", str(model_path), "--kv-cache-gb", "1", "--dtype", "float32")
    with serving(command, data_dir, *flags) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[layerscale.LayerScale]:
    with layerscale.LayerScale(base_url=server.url, max_retries=0) as client:
        yield client


@pytest.fixture
def session(client: layerscale.LayerScale) -> Iterator[str]:
    """The id of a fresh session."""
    session_id = client.sessions.create().id
    yield session_id
    with contextlib.suppress(layerscale.NotFoundError):
        client.sessions.delete(session_id)
