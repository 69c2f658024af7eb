"""Webhooks are told over real connections, and nobody is told who should not be."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from yarl import URL

from flashquery.notify import Webhook
from service.metrics import Counters
from service.notify import Webhooks
from streams.errors import Conflict, InvalidInput
from tests.apps import until
from tests.service.receiver import Receiver, receiving, verified

PRIVATE = (
    "localhost",
    "127.0.0.1",
    "[::1]",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "[::ffff:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::1]",
    "[fe80::1]",
)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@asynccontextmanager
async def sending(*, private: bool = True, limit: int = 100) -> AsyncIterator[tuple[Webhooks, Counters]]:
    counters = Counters()
    async with Webhooks(counters, private=private, limit=limit, second=0.001) as webhooks:
        yield webhooks, counters


def answer(value: str, version: int = 1) -> dict[str, Any]:
    return {"id": 1, "query": "Up?", "value": value, "data_version": version, "confidence": 1.5, "evaluated_at": 0}


def watch(webhooks: Webhooks, url: str, session_id: str = "s", query_id: int = 1) -> Webhook:
    webhook = webhooks.accept(url, None)
    webhooks.watch(session_id, query_id, webhook)
    return webhook


async def test_a_change_is_told_and_signed(receiver: Receiver) -> None:
    async with sending() as (webhooks, counters):
        webhook = watch(webhooks, receiver.url)
        webhooks.answered("s", 1, answer("up", 7))
        await until(lambda: counters.notifications_delivered)
    ((headers, body),) = receiver.sent
    assert verified(webhook.secret, headers, body)
    assert headers["Content-Type"] == "application/json"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert receiver.data == [{"session_id": "s", **answer("up", 7)}]


async def test_the_secret_may_be_the_clients_own(receiver: Receiver) -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    async with sending() as (webhooks, counters):
        webhooks.watch("s", 1, webhooks.accept(receiver.url, secret))
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: counters.notifications_delivered)
    assert verified(secret, *receiver.sent[0])


async def test_only_changes_are_told(receiver: Receiver) -> None:
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url)
        told = 0
        for version, value in enumerate(("up", "up", "down", "down", "up")):
            webhooks.answered("s", 1, answer(value, version))
            told += value != (receiver.values[-1] if receiver.sent else None)
            await until(lambda: counters.notifications_delivered == told)  # noqa: B023
    assert receiver.values == ["up", "down", "up"]
    assert [data.get("previous_value") for data in receiver.data] == [None, "up", "down"]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_what_failed_for_now_is_sent_again_as_the_same_message(receiver: Receiver, status: int) -> None:
    receiver.answers.extend([(status, {})] * 3)
    async with sending() as (webhooks, counters):
        webhook = watch(webhooks, receiver.url)
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: counters.notifications_delivered)
    assert len(receiver.sent) == 4
    assert len({(headers["webhook-id"], body) for headers, body in receiver.sent}) == 1
    assert all(verified(webhook.secret, headers, body) for headers, body in receiver.sent)
    assert counters.notifications_failed == 0


async def test_a_receiver_that_is_down_is_told_the_newest_when_it_is_back() -> None:
    async with receiving() as gone:
        url = URL(gone.url)
    async with sending() as (webhooks, counters):
        watch(webhooks, str(url))
        for version in range(5):
            webhooks.answered("s", 1, answer(f"value {version}", version))
        async with receiving_at(url.port or 0) as receiver:
            await until(lambda: counters.notifications_delivered)
    assert receiver.values == ["value 4"]


@asynccontextmanager
async def receiving_at(port: int) -> AsyncIterator[Receiver]:
    """A receiver at a port that another one has had."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield receiver
    finally:
        await runner.cleanup()


async def test_a_message_nobody_takes_is_given_up_and_said(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.answers.extend([(500, {})] * 10)
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url + "?token=hidden")
        webhooks.answered("s", 1, answer("up"))
        with caplog.at_level(logging.WARNING):
            await until(lambda: counters.notifications_failed)
        webhooks.answered("s", 1, answer("down", 2))
        await until(lambda: counters.notifications_delivered)
    assert receiver.values == ["up"] * 10 + ["down"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "s/1" in line
    assert "status 500" in line
    assert "hidden" not in line


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 400, 401, 404])
async def test_refusals_and_redirects_are_not_followed_up(receiver: Receiver, status: int) -> None:
    async with receiving() as elsewhere, sending() as (webhooks, counters):
        receiver.answers.append((status, {"Location": elsewhere.url}))
        watch(webhooks, receiver.url)
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: counters.notifications_failed)
        webhooks.answered("s", 1, answer("down"))
        await until(lambda: counters.notifications_delivered)
        assert elsewhere.sent == []
    assert receiver.values == ["up", "down"]


async def test_a_receiver_that_is_gone_hears_no_more(receiver: Receiver) -> None:
    receiver.answers.append((410, {}))
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url)
        watch(webhooks, receiver.url, query_id=2)
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: counters.notifications_failed)
        webhooks.answered("s", 1, answer("down"))
        webhooks.answered("s", 2, answer("other"))
        await until(lambda: counters.notifications_delivered)
    assert receiver.values == ["up", "other"]


async def test_one_slow_receiver_does_not_hold_up_others(receiver: Receiver) -> None:
    async with receiving() as slow, sending() as (webhooks, counters):
        slow.open.clear()
        for number in range(80):
            watch(webhooks, slow.url, query_id=number)
            webhooks.answered("s", number, answer("up"))
        await until(lambda: slow.waiting)
        watch(webhooks, receiver.url, "t")
        webhooks.answered("t", 1, answer("up"))
        await until(lambda: counters.notifications_delivered)
        assert receiver.values == ["up"]
        assert slow.waiting <= 4


async def test_a_response_that_never_ends_is_not_read(receiver: Receiver) -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    app = web.Application()
    app.router.add_post("/", endless)
    async with TestServer(app) as server, sending() as (webhooks, counters):
        watch(webhooks, str(server.make_url("/")))
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: counters.notifications_delivered)


@pytest.mark.parametrize("query_id", [None, 1])
async def test_what_is_gone_is_not_told_any_more(receiver: Receiver, query_id: int | None) -> None:
    receiver.open.clear()
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url)
        watch(webhooks, receiver.url, "t")
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: receiver.waiting)
        webhooks.forget("s", query_id)
        await until(lambda: not receiver.waiting)
        receiver.open.set()
        webhooks.answered("s", 1, answer("down"))
        webhooks.answered("t", 1, answer("still told"))
        await until(lambda: counters.notifications_delivered)
    assert receiver.values == ["up", "still told"]


async def test_closing_ends_what_is_being_sent(receiver: Receiver) -> None:
    receiver.open.clear()
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url)
        webhooks.answered("s", 1, answer("up"))
        await until(lambda: receiver.waiting)
    await until(lambda: not receiver.waiting)
    assert counters == Counters()


@pytest.mark.parametrize("host", PRIVATE)
async def test_private_receivers_are_refused_when_registered(host: str) -> None:
    async with sending(private=False) as (webhooks, _):
        with pytest.raises(InvalidInput, match="public") as refused:
            webhooks.accept(f"http://{host}:80/", None)
        assert refused.value.param == "notify"
    async with sending() as (webhooks, _):
        assert webhooks.accept(f"http://{host}:80/", None).url


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0x7f.1", "0.0.0.0"])
async def test_private_receivers_are_not_connected_to(
    receiver: Receiver, host: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However a connection came to be about to be made: ``localhost`` stands for any name that DNS can change."""
    port = URL(receiver.url).port
    async with sending(private=False) as (webhooks, counters):
        webhooks.watch("s", 1, Webhook(f"http://{host}:{port}/hook", b"k" * 32))
        webhooks.answered("s", 1, answer("up"))
        with caplog.at_level(logging.WARNING):
            await until(lambda: counters.notifications_failed)
    assert receiver.sent == []
    assert "attempt 1, the last one: the address is not public" in caplog.text


async def test_names_that_do_not_exist_are_given_up(receiver: Receiver) -> None:
    async with sending(private=False) as (webhooks, counters):
        for number, host in enumerate(("a..b", "x" * 64, "nowhere.invalid")):
            watch(webhooks, f"http://{host}/", query_id=number)
            webhooks.answered("s", number, answer("up"))
        await until(lambda: counters.notifications_failed == 3, 60)


async def test_the_environments_proxy_is_not_used(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{unused.getsockname()[1]}")
        async with sending() as (webhooks, counters):
            watch(webhooks, receiver.url)
            webhooks.answered("s", 1, answer("up"))
            await until(lambda: counters.notifications_delivered)


async def test_cookies_are_not_kept(receiver: Receiver) -> None:
    receiver.answers.append((200, {"Set-Cookie": "a=b; Path=/"}))
    async with sending() as (webhooks, counters):
        watch(webhooks, receiver.url)
        for number, value in enumerate(("up", "down"), start=1):
            webhooks.answered("s", 1, answer(value))
            await until(lambda: counters.notifications_delivered == number)  # noqa: B023
    assert ["Cookie" in headers for headers, _ in receiver.sent] == [False, False]


async def test_there_are_only_so_many() -> None:
    async with sending(limit=2) as (webhooks, _):
        watch(webhooks, "https://example.com/", query_id=1)
        watch(webhooks, "https://example.com/", query_id=2)
        with pytest.raises(Conflict) as refused:
            webhooks.accept("https://example.com/", None)
        assert refused.value.code == "webhook_limit"
        webhooks.forget("s", 1)
        assert webhooks.accept("https://example.com/", None)
