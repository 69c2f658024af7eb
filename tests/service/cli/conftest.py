from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.servers import FAST, Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server process with the in-process engine, for all tests of a module."""
    with serving(FAST, tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url) as http:
        yield http
