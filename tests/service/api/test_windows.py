"""Windows and types over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests import apps
from tests.apps import call, core, ok, settled

CANDLES = [
    {"o": 10, "h": 12, "l": 9, "c": 11, "v": 100},
    {"o": 11, "h": 15, "l": 11, "c": 14.5, "v": 50, "timestamp": 1_700_000_000, "sym": "ABC"},
    {"o": 14.5, "h": 14.5, "l": 8, "c": 9, "v": 75},
]


def shown(client: apps.Client, session_id: str) -> str:
    session = core(client).manager.get(session_id)
    text: str = core(client).manager.engine.tokenizer.decode(session.timeline.tokens[len(session.frame.head) :])  # type: ignore[attr-defined]
    return text


async def test_a_window_keeps_the_stream_short_and_tells_so(client: apps.Client) -> None:
    made = await ok(client, "POST", "/v1/sessions", {"id": "s", "window": 400})
    head = len(core(client).manager.get("s").frame.head)
    assert (made["window"], made["window_slack"], made["frozen_end"], made["evicted"]) == (400, 25, head, 0)
    version = 0
    for number in range(120):
        ack = await ok(client, "POST", "/v1/sessions/s/push", {"data": f"line {number:02d}"})
        assert ack["total_dropped"] == 0
        await settled(client, "s")
        found = await ok(client, "GET", "/v1/sessions/s")
        assert found["tokens"] <= 425
        assert found["data_version"] > version
        version = found["data_version"]
    assert found["evicted"] > 30
    assert shown(client, "s") == "".join(f"line {number:02d}\n" for number in range(found["evicted"], 120))
    assert await ok(client, "GET", "/v1/sessions/s/stats") == {"type": "text", "count": 120 - found["evicted"]}
    assert await ok(client, "GET", "/v1/sessions/s/stats?over=stream") == {"type": "text", "count": 120}
    answer = await ok(client, "POST", "/v1/sessions/s/generate", {"prompt": "Which?"})
    assert answer["data_version"] == version


async def test_old_data_leaves_a_window_in_seconds_without_any_push(client: apps.Client) -> None:
    made = await ok(client, "POST", "/v1/sessions", {"id": "s", "window_seconds": 0.05})
    assert (made["window_seconds"], "window" in made) == (0.05, False)
    await ok(client, "POST", "/v1/sessions/s/push", {"data": ["a", "b"]})
    await settled(client, "s")
    session = core(client).manager.get("s")
    await apps.until(lambda: session.evicted == 2)
    assert shown(client, "s") == ""
    assert (await ok(client, "GET", "/v1/sessions/s"))["data_version"] == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("window", 50, "must be at least"),
        ("window", 10**9, "tokens fit"),
        ("window", 0, "greater than or equal to 1"),
        ("window", 512.5, "valid integer"),
        ("window_seconds", 0, "greater than 0"),
        ("window_seconds", 1e12, "less than or equal"),
        ("type", "ticks", "ohlcv"),
    ],
)
async def test_what_is_no_window_or_type(client: apps.Client, field: str, value: Any, message: str) -> None:
    status, reply = await call(client, "POST", "/v1/sessions", {"id": "s", field: value})
    assert (status, reply["error"]["param"]) == (400, field)
    assert message in reply["error"]["message"]
    assert (await call(client, "GET", "/v1/sessions/s"))[0] == 404


async def test_an_entry_that_a_window_has_no_room_for(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "window": 400})
    status, reply = await call(client, "POST", "/v1/sessions/s/push", {"data": ["fine", "x" * 300]})
    assert (status, reply["error"]["code"]) == (400, "context_length_exceeded")
    assert (await ok(client, "GET", "/v1/sessions/s"))["pending"] == 0


async def test_typed_entries_are_read_as_lines_and_counted(client: apps.Client) -> None:
    made = await ok(client, "POST", "/v1/sessions", {"id": "s", "type": "ohlcv"})
    assert made["type"] == "ohlcv"
    await ok(client, "POST", "/v1/sessions/s/push", {"data": CANDLES[0]})
    await ok(client, "POST", "/v1/sessions/s/push", {"data": [CANDLES[1], "halted", CANDLES[2]]})
    await settled(client, "s")
    lines = shown(client, "s").splitlines()
    assert len(lines) == 4
    assert lines[2] == "halted", "text between typed entries is read and not counted"
    stats = await ok(client, "GET", "/v1/sessions/s/stats")
    assert (stats["type"], stats["count"], stats["max_high"], stats["max_high_index"]) == ("ohlcv", 3, 15, 1)
    assert (stats["min_low"], stats["first_open"], stats["last_close"], stats["change_pct"]) == (8, 10, 9, -10)


async def test_a_typed_entry_with_a_wrong_field_is_refused_with_all_of_its_push(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "type": "ohlcv"})
    status, reply = await call(
        client, "POST", "/v1/sessions/s/push", {"data": [CANDLES[0], {**CANDLES[1], "h": "high"}]}
    )
    assert (status, reply["error"]["param"]) == (400, "data.1.h")
    assert (await ok(client, "GET", "/v1/sessions/s/stats"))["count"] == 0


async def test_objects_need_a_type(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    status, reply = await call(client, "POST", "/v1/sessions/s/push", {"data": CANDLES[0]})
    assert (status, reply["error"]["param"]) == (400, "data")
    assert "`type`" in reply["error"]["message"]


async def test_a_type_of_ones_own(client: apps.Client) -> None:
    schema = {
        "type": "object",
        "properties": {"host": {"type": "string"}, "cpu": {"type": "number"}},
        "required": ["host", "cpu"],
    }
    made = await ok(
        client,
        "POST",
        "/v1/sessions",
        {"id": "s", "type": {"name": "load", "schema": schema, "template": "{host} cpu={cpu:.1f}%"}},
    )
    assert made["type"] == "load"
    await ok(client, "POST", "/v1/sessions/s/push", {"data": [{"host": "a", "cpu": 12.34}, {"host": "b", "cpu": 50}]})
    await settled(client, "s")
    assert shown(client, "s") == "a cpu=12.3%\nb cpu=50.0%\n"
    assert (await ok(client, "GET", "/v1/sessions/s/stats"))["count"] == 2
    status, reply = await call(client, "POST", "/v1/sessions/s/push", {"data": {"host": "a"}})
    assert status == 400
    assert reply["error"]["param"].startswith("data")


async def test_a_socket_takes_typed_entries(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s", "type": "ohlcv"})
    async with client.ws_connect("/v1/sessions/s/ws") as socket:
        await socket.receive_json()
        await socket.send_json({"type": "push", "data": [CANDLES[0], CANDLES[1]]})
        ack = await socket.receive_json()
        assert (ack["type"], ack["data"]["pushed"]) == ("push_ack", 2)
