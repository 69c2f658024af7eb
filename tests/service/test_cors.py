from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from service.cors import origin_allowed
from streams.errors import Overloaded
from tests.service.edge import edge_app, ok, serving

APP = "https://app.example.com"


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: 1\n\n")
    return response


async def _busy(request: web.Request) -> web.Response:
    raise Overloaded("busy", retry_after=1)


ROUTES = [web.get("/x", ok), web.post("/x", ok), web.get("/stream", _stream), web.get("/busy", _busy)]
PREFLIGHT = {
    "Origin": APP,
    "Access-Control-Request-Method": "DELETE",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}


async def test_preflights_of_allowed_origins_are_granted_without_a_key() -> None:
    async with serving(edge_app(ROUTES, cors_origins=APP, api_key="secret")) as client:
        for path in ("/x", "/nowhere"):
            response = await client.options(path, headers=PREFLIGHT)
            assert response.status == 204
            assert await response.read() == b""
            assert response.headers["Access-Control-Allow-Origin"] == APP
            assert "DELETE" in response.headers["Access-Control-Allow-Methods"]
            assert response.headers["Access-Control-Allow-Headers"] == PREFLIGHT["Access-Control-Request-Headers"]
            assert response.headers["Access-Control-Max-Age"].isdigit()
            assert "Origin" in ", ".join(response.headers.getall("Vary"))


@pytest.mark.parametrize("origins", ["", "https://other.example.com"])
async def test_preflights_of_others_are_granted_nothing(origins: str) -> None:
    async with serving(edge_app(ROUTES, cors_origins=origins)) as client:
        response = await client.options("/x", headers=PREFLIGHT)
        assert response.status == 204
        assert not [name for name in response.headers if name.startswith("Access-Control")]


@pytest.mark.parametrize("path", ["/x", "/stream", "/busy", "/nowhere"])
async def test_allowed_pages_may_read_everything(path: str) -> None:
    async with serving(edge_app(ROUTES, cors_origins=APP)) as client:
        response = await client.get(path, headers={"Origin": APP})
        assert response.headers["Access-Control-Allow-Origin"] == APP
        exposed = response.headers["Access-Control-Expose-Headers"]
        assert {"x-request-id", "ETag", "Retry-After"} <= set(exposed.split(", "))
        assert "Origin" in response.headers["Vary"]


@pytest.mark.parametrize("path", ["/x", "/stream", "/busy"])
async def test_other_pages_may_not(path: str) -> None:
    async with serving(edge_app(ROUTES, cors_origins=APP)) as client:
        response = await client.get(path, headers={"Origin": "https://evil.example.com"})
        assert "Access-Control-Allow-Origin" not in response.headers
        assert "Origin" in response.headers["Vary"]


async def test_a_missing_key_is_told_to_allowed_pages() -> None:
    async with serving(edge_app(ROUTES, cors_origins=APP, api_key="secret")) as client:
        response = await client.get("/x", headers={"Origin": APP})
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == APP


async def test_a_star_allows_all() -> None:
    async with serving(edge_app(ROUTES, cors_origins="*")) as client:
        response = await client.post("/x", json={}, headers={"Origin": "https://any.example.com"})
        assert response.status == 200
        assert response.headers["Access-Control-Allow-Origin"] == "https://any.example.com"


async def test_foreign_pages_cannot_change_anything_blindly() -> None:
    async with serving(edge_app(ROUTES)) as client:
        response = await client.post("/x", headers={"Origin": "https://evil.example.com"})
        assert response.status == 403
        error = (await response.json())["error"]
        assert (error["type"], error["code"]) == ("permission_error", "origin_not_allowed")
        assert (await client.post("/x")).status == 200
        own = f"http://{client.host}:{client.port}"
        assert (await client.post("/x", headers={"Origin": own})).status == 200


@pytest.mark.parametrize(
    ("origin", "host", "origins", "allowed"),
    [
        (None, "server:8080", [], True),
        ("http://server:8080", "server:8080", [], True),
        ("HTTP://Server:8080", "server:8080", [], True),
        ("https://server", "server", [], True),
        ("https://server", "server:443", [], True),
        ("http://server:80", "server", [], True),
        ("http://server:8081", "server:8080", [], False),
        ("http://server", "server:8080", [], False),
        ("http://evil", "server:8080", [], False),
        ("http://server:8080.evil", "server:8080", [], False),
        ("null", "server:8080", [], False),
        ("", "server:8080", [], False),
        ("http://[", "server:8080", [], False),
        ("file://", "", [], False),
        ("ftp://server:8080", "server:8080", [], False),
        (APP, "server:8080", [APP], True),
        (APP.upper(), "server:8080", [APP], True),
        ("http://app.example.com", "server:8080", [APP], False),
        ("null", "server:8080", ["*"], True),
    ],
)
def test_which_origins_are_allowed(origin: str | None, host: str, origins: list[str], allowed: bool) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert origin_allowed(make_mocked_request("GET", "/ws", headers=headers), origins) is allowed
