"""Polls that are answered before anything is routed: the answers are those of the usual way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from yarl import URL

from service.api.legacy.views import is_legacy
from service.keys import METRICS
from tests import apps
from tests.apps import call, core, ok, until
from tests.service.access import tenants
from tests.service.access.tenants import ACME, MAIN

FLASH = "/v1/sessions/acme-s/flash"
PATHS = (
    FLASH,
    f"{FLASH}/1",
    f"{FLASH}/2",
    f"{FLASH}/0",
    f"{FLASH}/01",
    f"{FLASH}/1234567890",
    f"{FLASH}/x",
    "/v1/sessions/none/flash",
    "/v1/sessions/rival-s/flash",
    "/v1/sessions/rival-s/flash/1",
    "/v1/sessions/acme-old/flash",
    "/v1/sessions/acme-old/flash/1",
    "/v1/sessions/a%63me-s/flash",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"Accept": "application/msgpack"},
    {"If-None-Match": "*"},
    {"If-None-Match": '"another"'},
    {"Origin": "https://page.example"},
    {"Origin": "https://other.example"},
    {"Authorization": "Bearer wrong"},
    {"X-Request-Id": "mine"},
    {"X-Request-Id": "not mine"},
)


@pytest.fixture
async def client(redis: Redis, tmp_path: Path) -> AsyncIterator[apps.Client]:
    """Of an application with three sessions, which have a Flash Query each; one session is old-style."""
    async with tenants.serving(redis, tmp_path, cors_origins=["https://page.example"]) as client:
        query = {"query": "Hot?"}
        for name in ("acme-s", "rival-s"):
            await ok(client, "POST", "/v1/sessions", {"id": name, "flash": [query]}, headers=MAIN)
        old = (await ok(client, "POST", "/v1/sessions/init", {"type": "iot"}, headers=ACME))["session_id"]
        await ok(client, "POST", f"/v1/sessions/{old}/flash", query, headers=ACME)
        for name in ("acme-s", "rival-s"):
            await ok(client, "POST", f"/v1/sessions/{name}/push", {"data": "x"}, headers=MAIN)
            await ok(client, "GET", f"/v1/sessions/{name}/flash?wait=10", headers=MAIN)
        yield client


async def told(client: apps.Client, path: str, headers: dict[str, str]) -> dict[str, Any]:
    """Everything of a response that is not new each time."""
    async with client.get(URL(path, encoded=True), headers=headers) as response:
        names = sorted((name.lower(), value) for name, value in response.headers.items())
        names = [(name, value) for name, value in names if name not in ("date", "x-request-id")]
        if headers.get("X-Request-Id") == "mine":
            assert response.headers["x-request-id"] == "mine"
        else:
            assert response.headers["x-request-id"].startswith("req_")
        return {"status": response.status, "headers": names, "body": await response.read()}


def counted(client: apps.Client) -> Counter[tuple[str, str, int]]:
    """How many requests there were, by method, route and status."""
    return client.app[METRICS].http_requests.copy()


@pytest.mark.parametrize("path", PATHS)
async def test_answers_are_those_of_the_usual_way(client: apps.Client, path: str) -> None:
    (old,) = (session.id for session in core(client).manager.sessions() if is_legacy(session))
    path = path.replace("acme-old", old)
    for key in (MAIN, ACME):
        for more in HEADERS:
            begun = counted(client)
            passed = await told(client, path, key | more)
            between = counted(client)
            usual = await told(client, path.replace("/flash", "/fl%61sh"), key | more)
            ended = counted(client)
            assert passed == usual, more
            assert between - begun == ended - between


@pytest.mark.parametrize("path", [FLASH, f"{FLASH}/1"])
async def test_nothing_is_routed_for_them(client: apps.Client, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(client.app.router), "resolve", None)
    assert (await call(client, "GET", path, headers=MAIN))[0] == 200


async def test_they_restart_the_idle_clock(client: apps.Client) -> None:
    session = core(client).manager.get("acme-s")
    before = session.last_used
    await until(lambda: time.time() > before)
    await ok(client, "GET", FLASH, headers=ACME)
    assert session.last_used > before


async def test_they_count_as_requests_of_their_client(redis: Redis, tmp_path: Path) -> None:
    async with tenants.serving(redis, tmp_path, "requests_per_second = 0.001", "burst = 4") as client:
        await ok(client, "POST", "/v1/sessions", {"id": "acme-s", "flash": [{"query": "Hot?"}]}, headers=ACME)
        statuses = [(await call(client, "GET", FLASH, headers=ACME))[0] for _ in range(5)]
    assert statuses == [200] * 3 + [429] * 2
