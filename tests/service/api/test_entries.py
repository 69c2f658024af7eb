"""What the model has read last, as it was pushed."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests import apps
from tests.apps import call, core, ok, settled, until
from tests.engine.fast import FastEngine

CANDLES = [{"o": 1.5, "h": 2, "l": 1, "c": 1 + number / 10, "v": 10 * number, "timestamp": number} for number in (1, 2)]


async def pushed(client: apps.Client, data: Any, **options: Any) -> str:
    """A session that has read this."""
    session_id: str = (await ok(client, "POST", "/v1/sessions", options))["id"]
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": data})
    await settled(client, session_id)
    return session_id


async def entries(client: apps.Client, session_id: str, query: str = "") -> list[tuple[int, Any]]:
    """Number and entry of each."""
    found = await ok(client, "GET", f"/v1/sessions/{session_id}/entries{query}")
    return [(one["number"], one["entry"]) for one in found["data"]]


@pytest.mark.parametrize(
    ("type", "data"),
    [
        (None, ["one line", "größer\nas two"]),
        ("ohlcv", CANDLES),
        ("iot", [{"sid": "a", "val": 1.5, "lo": 0, "hi": 2}, "a remark"]),
        ({"schema": {"type": "object", "properties": {"host": {}}}, "template": "{host}"}, [{"host": "a1"}, {}]),
    ],
    ids=["text", "ohlcv", "iot", "own"],
)
async def test_entries_are_what_was_pushed(client: apps.Client, type: Any, data: list[Any]) -> None:
    before = time.time()
    session_id = await pushed(client, data, type=type)
    found = await ok(client, "GET", f"/v1/sessions/{session_id}/entries")
    assert [(one["number"], one["entry"]) for one in found["data"]] == list(enumerate(data, 1))
    assert all(before <= one["accepted_at"] <= time.time() for one in found["data"])
    assert (found["object"], found["data_version"]) == ("list", 1)


async def test_the_newest_come_and_one_can_go_on(client: apps.Client) -> None:
    session_id = await pushed(client, list("abcde"))
    assert await entries(client, session_id, "?limit=2") == [(4, "d"), (5, "e")]
    assert await entries(client, session_id, "?since=3") == [(4, "d"), (5, "e")]
    assert await entries(client, session_id, "?since=1&limit=2") == [(4, "d"), (5, "e")]
    assert await entries(client, session_id, "?since=5") == []
    assert await entries(client, session_id, "?since=99") == []


async def test_there_are_none_before_there_is_data(client: apps.Client) -> None:
    session_id = (await ok(client, "POST", "/v1/sessions", {}))["id"]
    assert await entries(client, session_id) == []


async def test_what_is_being_read_is_not_among_them(client: apps.Client, engine: FastEngine) -> None:
    session_id = await pushed(client, "read")
    engine.ingest_gate.clear()
    before = core(client).manager.get(session_id).tokens
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": ["being read", "too"]})
    await until(lambda: core(client).manager.get(session_id).tokens > before)
    assert await entries(client, session_id) == [(1, "read")]
    engine.ingest_gate.set()
    await settled(client, session_id)
    assert await entries(client, session_id) == [(1, "read"), (2, "being read"), (3, "too")]


async def test_numbers_go_on_over_a_window(client: apps.Client) -> None:
    lines = [f"line {number:03}" for number in range(1, 101)]
    session_id = await pushed(client, lines, window=400)
    session = core(client).manager.get(session_id)
    await until(lambda: session.evicted)
    found = await entries(client, session_id, "?limit=1000")
    assert found == list(enumerate(lines, 1))[session.evicted :]
    assert len(found) == session.entries


async def test_a_turn_between_makes_no_difference(client: apps.Client) -> None:
    session_id = await pushed(client, ["before"])
    headers = {"x-layerscale-session-id": session_id}
    said = {"messages": [{"role": "user", "content": "Well?"}], "max_tokens": 2}
    await ok(client, "POST", "/v1/chat/completions", said, headers=headers)
    await ok(client, "POST", f"/v1/sessions/{session_id}/push", {"data": "after"})
    await settled(client, session_id)
    assert await entries(client, session_id) == [(1, "before"), (2, "after")]
    assert await entries(client, session_id, "?limit=1") == [(2, "after")]


async def test_frozen_entries_are_left_out(client: apps.Client) -> None:
    session_id = (await ok(client, "POST", "/v1/sessions/init", {"type": "ohlcv"}))["session_id"]
    for candle in CANDLES:
        await ok(client, "POST", f"/v1/sessions/{session_id}/stream/push", {"data": [candle]})
        await settled(client, session_id)
        if candle is CANDLES[0]:
            await ok(client, "POST", f"/v1/sessions/{session_id}/mark_prefix", {})
    assert await entries(client, session_id) == [(2, CANDLES[1])]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "since=-1", "other=1"])
async def test_a_wrong_query_is_refused(client: apps.Client, query: str) -> None:
    session_id = await pushed(client, "a")
    status, body = await call(client, "GET", f"/v1/sessions/{session_id}/entries?{query}")
    assert status == 400
    assert body["error"]["param"] == query.partition("=")[0]


async def test_an_unknown_session_has_none(client: apps.Client) -> None:
    status, body = await call(client, "GET", "/v1/sessions/nope/entries")
    assert (status, body["error"]["code"]) == (404, "session_not_found")
