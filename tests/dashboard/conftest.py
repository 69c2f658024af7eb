from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.dashboard.browser import Api, chromium
from tests.servers import FAST, Server, serving


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One for all tests; each has windows of its own."""
    async with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server process over the in-process engine, without keys."""
    with serving(FAST, tmp_path_factory.mktemp("dashboard")) as server:
        yield server


@pytest.fixture
def api(server: Server) -> Iterator[Api]:
    """What tests do beside the page, on a server without sessions."""
    api = Api(server.url)
    for session in api("GET", "/v1/sessions")["data"]:
        api("DELETE", f"/v1/sessions/{session['id']}")
    yield api
    api.close()
