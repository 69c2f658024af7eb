"""The page and its files: for anybody, with entity tags, and a policy that lets nothing in from elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from service.dashboard import routes
from service.dashboard.routes import OPERATIONS
from service.openapi import add_routes, keyless
from tests.service.edge import edge_app, ok, serving

STATIC = Path(routes.__file__).parent / "static"
FILES = sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob("*.*"))
SCRIPTS = [path for path in FILES if path.endswith(".js") and "/" not in path]
PATHS = ["/dashboard", *(f"/dashboard/{path}" for path in FILES)]

Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Of a server with a key, which the client does not have."""
    app = edge_app([web.get("/metrics", ok)], keyless(OPERATIONS), api_key="secret")
    add_routes(app, OPERATIONS)
    async with serving(app) as client:
        yield client


@pytest.mark.parametrize("path", PATHS)
async def test_everybody_gets_it_with_a_strict_policy(client: Client, path: str) -> None:
    response = await client.get(path)
    assert response.status == 200
    assert response.content_type == {".js": "text/javascript", ".css": "text/css"}.get(Path(path).suffix, "text/html")
    policy = dict(part.split(maxsplit=1) for part in response.headers["Content-Security-Policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("path", PATHS)
async def test_who_has_it_is_told_so(client: Client, path: str) -> None:
    whole = await client.get(path)
    tag = whole.headers["ETag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        response = await client.get(path, headers={"If-None-Match": known})
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["ETag"] == tag
        assert response.headers["Content-Security-Policy"] == whole.headers["Content-Security-Policy"]
    assert (await client.get(path, headers={"If-None-Match": '"other"'})).status == 200
    head = await client.head(path)
    assert (head.status, await head.read(), head.headers["ETag"]) == (200, b"", tag)
    assert head.headers["Content-Length"] == whole.headers["Content-Length"]


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/nope.js",
        "/dashboard/vendor",
        "/dashboard/vendor/",
        "/dashboard/vendor/LICENSE",
        "/dashboard/../metrics",
        "/dashboard/../routes.py",
        "/dashboard/..%2froutes.py",
        "/dashboard/%2e%2e/routes.py",
        "/dashboard/vendor/../../routes.py",
        "/dashboard/..%5c..%5croutes.py",
        "/dashboard//etc/passwd",
        "/dashboard/%2fetc%2fpasswd",
        "/dashboard/main.js%00.html",
        "/dashboard/%2e%2e%2f%2e%2e%2fmetrics",
    ],
)
async def test_there_is_nothing_else(client: Client, path: str) -> None:
    assert await status(client, path) == 404


@pytest.mark.parametrize(
    "path", ["/metrics", "/./metrics", "/dashboard/", "/dashboardx", "/Dashboard", "/%64ashboardx"]
)
async def test_nothing_beside_it_is_open(client: Client, path: str) -> None:
    assert await status(client, path) == 401


async def status(client: Client, path: str) -> int:
    """Of a request for exactly that path, which clients would put in order first."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {client.host}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split()[1])


async def test_it_is_only_read(client: Client) -> None:
    assert (await client.post("/dashboard")).status == 401
    response = await client.post("/dashboard", headers={"x-api-key": "secret"})
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    page = (STATIC / "index.html").read_text()
    assert "http" not in page
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)|javascript:", page)
    for source in re.findall(r'(?:src|href)="([^"#][^"]*)"', page):
        assert source == "data:," or f"{source.removeprefix('/dashboard/')}" in FILES, source


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_make_no_markup_of_text_and_keep_nothing(script: str) -> None:
    text = (STATIC / script).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(", text)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)
    assert len(text.splitlines()) <= 300
    assert all(len(line) <= 120 for line in text.splitlines())
    for source in re.findall(r'from "\./([^"]+)"', text):
        assert source in SCRIPTS


def test_what_others_wrote_comes_with_its_licence() -> None:
    assert "MIT" in (STATIC / "vendor" / "LICENSE").read_text()
