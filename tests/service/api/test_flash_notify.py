"""Webhooks over HTTP: registered with a query, told of its answers, gone with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from tests import apps
from tests.apps import answered, call, ok, settled, until
from tests.engine.fast import FastEngine
from tests.service.receiver import Receiver, receiving, verified

FLASH = "/v1/sessions/s/flash"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def allowing(redis: Redis, tmp_path: Path, engine: FastEngine) -> AsyncIterator[apps.Client]:
    """A server whose webhooks may be on this machine, with a session."""
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine, notify_private=True) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        yield client


async def push(client: apps.Client, data: str) -> dict[str, Any]:
    """Push and wait for the answer."""
    await ok(client, "POST", "/v1/sessions/s/push", {"data": data})
    await settled(client, "s")
    (query,) = await answered(client, "s")
    return query


async def test_every_change_is_told_with_the_answer_that_is_served(
    allowing: apps.Client, receiver: Receiver, engine: FastEngine
) -> None:
    query = await ok(allowing, "POST", FLASH, {"query": "Trend?", "choices": ["up", "down"], "notify": receiver.url})
    secret = query["notify"].pop("secret")
    assert query["notify"] == {"url": receiver.url}
    values: list[str] = []
    for number in range(12):
        served = await push(allowing, f"line {number}")
        assert served["notify"] == {"url": receiver.url}, "the secret is told once"
        if not values or values[-1] != served["value"]:
            values.append(served["value"])
            await until(lambda: len(receiver.sent) == len(values))
            told = receiver.data[-1]
            assert told.pop("previous_value", None) == (values[-2] if len(values) > 1 else None)
            assert told.pop("session_id") == "s"
            assert told == {name: served[name] for name in told}
            assert {"id", "query", "value", "data_version", "confidence", "evaluated_at", "probabilities"} <= set(told)
    assert receiver.values == values
    assert len(values) > 1
    assert all(verified(secret, headers, body) for headers, body in receiver.sent)
    async with allowing.get("/metrics") as response:
        assert f"askahead_notifications_delivered_total {len(values)}.0" in await response.text()


async def test_a_secret_of_the_clients_own_is_not_told(allowing: apps.Client, receiver: Receiver) -> None:
    body = {"query": "Trend?", "notify": {"url": receiver.url, "secret": SECRET}}
    assert (await ok(allowing, "POST", FLASH, body))["notify"] == {"url": receiver.url}
    await push(allowing, "x")
    await until(lambda: receiver.sent)
    assert verified(SECRET, *receiver.sent[0])


async def test_a_query_without_a_webhook_has_none(allowing: apps.Client) -> None:
    assert "notify" not in await ok(allowing, "POST", FLASH, {"query": "Trend?"})


@pytest.mark.parametrize("path", [f"{FLASH}/1", "/v1/sessions/s"])
async def test_what_is_deleted_is_not_told_of(allowing: apps.Client, receiver: Receiver, path: str) -> None:
    receiver.open.clear()
    await ok(allowing, "POST", FLASH, {"query": "Trend?", "notify": receiver.url})
    await push(allowing, "x")
    await until(lambda: receiver.waiting)
    await ok(allowing, "DELETE", path)
    await until(lambda: not receiver.waiting)


async def test_a_secret_of_null_is_made_by_the_server(allowing: apps.Client, receiver: Receiver) -> None:
    body = {"query": "Trend?", "notify": {"url": receiver.url, "secret": None}}
    assert (await ok(allowing, "POST", FLASH, body))["notify"]["secret"].startswith("whsec_")


async def test_with_a_session_comes_the_clients_own_secret(allowing: apps.Client, receiver: Receiver) -> None:
    query = {"query": "Trend?", "notify": {"url": receiver.url, "secret": SECRET}}
    await ok(allowing, "POST", "/v1/sessions", {"id": "t", "flash": [query]})
    await ok(allowing, "POST", "/v1/sessions/t/push", {"data": "x"})
    await until(lambda: receiver.sent)
    assert receiver.data[0]["session_id"] == "t"
    for notify in (receiver.url, {"url": receiver.url}):
        status, reply = await call(allowing, "POST", "/v1/sessions", {"flash": [{"query": "Up?", "notify": notify}]})
        assert (status, reply["error"]["param"]) == (400, "flash")


@pytest.mark.parametrize(
    ("notify", "param"),
    [
        (1, "notify"),
        ("", "notify"),
        ("example.com", "notify"),
        ("http://0x7f.1/", "notify"),
        ("https://user:secret@example.com/", "notify"),
        ("https://example.com/" + "x" * 2048, "notify"),
        ("http://127.0.0.1/", "notify"),
        ("http://localhost:8080/", "notify"),
        ("http://169.254.169.254/latest/meta-data", "notify"),
        ({"url": "http://[::1]/"}, "notify"),
        ({"url": "ftp://example.com"}, "notify.url"),
        ({"secret": SECRET}, "notify.url"),
        ({"url": "https://example.com", "secret": "x"}, "notify.secret"),
        ({"url": "https://example.com", "secret": SECRET, "x": 1}, "notify.x"),
    ],
)
async def test_bad_webhooks_are_refused_by_field(client: apps.Client, notify: Any, param: str) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    status, reply = await call(client, "POST", FLASH, {"query": "Trend?", "notify": notify})
    assert (status, reply["error"]["param"]) == (400, param)
    assert (await ok(client, "GET", FLASH))["data"] == []


async def test_a_session_is_not_made_with_a_webhook_too_many(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, max_webhooks=1) as client:
        notify = {"url": "https://example.com/", "secret": SECRET}
        flash = [{"query": text, "notify": notify} for text in ("a", "b")]
        status, reply = await call(client, "POST", "/v1/sessions", {"id": "s", "flash": flash})
        assert (status, reply["error"]["code"]) == (409, "webhook_limit")
        assert (await ok(client, "GET", "/v1/sessions"))["data"] == []
        await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": flash[:1]})
        status, reply = await call(client, "POST", FLASH, flash[1])
        assert (status, reply["error"]["code"]) == (409, "webhook_limit")
        await ok(client, "DELETE", f"{FLASH}/1")
        await ok(client, "POST", FLASH, flash[1])
