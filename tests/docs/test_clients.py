"""Every client of docs/clients.md, as the page has it: programs against a server, pages in a browser."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import Page, expect

from tests.dashboard.browser import SECONDS, Api, chromium
from tests.docs.running import run
from tests.servers import FAST, ROOT, serving

PAGE = ROOT / "docs" / "clients.md"
KEY = "a-key-of-ours"
QUERY = {"query": "Is any reading above 80?", "choices": ["yes", "no"]}


def test_programs(tmp_path: Path) -> None:
    run(PAGE, tmp_path / "page")


@pytest.fixture
async def window() -> AsyncIterator[Page]:
    """A page that must not complain."""
    complaints: list[str] = []
    async with chromium() as browser:
        page = await browser.new_page()
        page.set_default_timeout(SECONDS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page
    assert complaints == []


async def page_of(request: web.Request) -> web.Response:
    """One of the pages in the document, with the address of the test's server in it."""
    html = re.findall(r"^```html\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    body = html[int(request.match_info["number"])]
    assert "http://localhost:8080" in body
    return web.Response(text=body.replace("http://localhost:8080", request.query["server"]), content_type="text/html")


@pytest.fixture
async def site() -> AsyncIterator[str]:
    """The origin of a site of one's own that has the pages."""
    app = web.Application()
    app.router.add_get("/{number}", page_of)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


async def follows(page: Page, api: Api) -> None:
    """The page shows the newest answer as data comes."""
    for version in (2, 3):
        api.push("plant", f"12:0{version} boiler 8{version}.5")
        await expect(page.locator("output")).to_have_text(
            re.compile(rf"Is any reading above 80\? (yes|no) \(version {version}\)")
        )


async def test_event_source(window: Page, site: str, tmp_path: Path) -> None:
    with serving(FAST, tmp_path, "--cors-origins", site) as server:
        api = Api(server.url)
        api.create("plant", QUERY)
        api.push("plant", "12:01 boiler 83.2")
        await window.goto(f"{site}/0?server={server.url}")
        await expect(window.locator("output")).to_contain_text("(version 1)")
        await follows(window, api)
        api.close()


async def test_fetch_with_a_key(window: Page, site: str, tmp_path: Path) -> None:
    with serving(FAST, tmp_path, "--cors-origins", site, "--api-key", KEY) as server:
        api = Api(server.url, KEY)
        api.create("plant", QUERY)
        api.push("plant", "12:01 boiler 83.2")
        await window.goto(f"{site}/1?server={server.url}")
        for key, said in (("another", "key"), (KEY, "(version 1)")):
            await window.get_by_label("Key").fill(key)
            await window.get_by_role("button").click()
            await expect(window.locator("output")).to_contain_text(said)
        await follows(window, api)
        api.close()
