"""A base model says that it is one, and its replies end where the next message would begin."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests import apps
from tests.apps import ok
from tests.engine.fast import FastEngine

ASKED = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 64}
CHAT = ["/v1/chat/completions", "/v1/messages"]


@pytest.fixture
def base() -> FastEngine:
    return FastEngine(chat_template="plain")


@pytest.fixture
async def client(redis: Redis, tmp_path: Path, base: FastEngine) -> AsyncIterator[apps.Client]:
    async with apps.serving(redis, tmp_path, base, cors_origins="https://app.example.com") as client:
        yield client


@pytest.mark.parametrize("path", CHAT)
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_responses_say_so(client: apps.Client, path: str, stream: bool) -> None:
    headers = {"Origin": "https://app.example.com"}
    async with client.post(path, json={"model": "m", **ASKED, "stream": stream}, headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["X-Chat-Template"] == "plain"
        assert "X-Chat-Template" in response.headers["Access-Control-Expose-Headers"]
    async with client.get("/v1/models") as response:
        assert "X-Chat-Template" not in response.headers
        assert (await response.json())["data"][0]["chat_template"] == "plain"


async def test_other_models_say_nothing(redis: Redis, tmp_path: Path) -> None:
    async with apps.serving(redis, tmp_path) as client, client.post(CHAT[0], json=ASKED) as response:
        assert response.status == 200
        assert "X-Chat-Template" not in response.headers


async def test_a_reply_ends_where_the_next_message_begins(client: apps.Client, base: FastEngine) -> None:
    base.script.extend(["It rises.\n\nUser: And then?"] * 3)
    reply = await ok(client, "POST", CHAT[0], ASKED)
    assert reply["choices"][0]["message"]["content"] == "It rises."
    assert reply["choices"][0]["finish_reason"] == "stop"
    # Nobody asked for this end, so it is no stop sequence of the client's.
    reply = await ok(client, "POST", CHAT[1], {"model": "m", **ASKED})
    assert (reply["content"][0]["text"], reply["stop_reason"], reply["stop_sequence"]) == (
        "It rises.",
        "end_turn",
        None,
    )
    reply = await ok(client, "POST", CHAT[1], {"model": "m", **ASKED, "stop_sequences": ["ri"]})
    assert (reply["content"][0]["text"], reply["stop_reason"], reply["stop_sequence"]) == ("It ", "stop_sequence", "ri")


async def test_an_operator_is_warned(redis: Redis, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="service"):
        async with apps.serving(redis, tmp_path, FastEngine(name="org/base", chat_template="plain")):
            pass
    assert [r.getMessage() for r in caplog.records if "org/base is served with the plain" in r.getMessage()] != []
