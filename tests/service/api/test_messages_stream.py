"""Messages over HTTP: streams of events."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests import apps
from tests.apps import until
from tests.engine.fast import FastEngine
from tests.service.api.asking import SteppedEngine, counters
from tests.service.api.talking import (
    CLOCK_TOOL,
    MESSAGES,
    WEATHER_TOOL,
    asking,
    events,
    message,
    parsed_events,
    written,
)

THINKING = {"thinking": {"type": "enabled", "budget_tokens": 2048}}


def assembled(stream: list[Any]) -> dict[str, Any]:
    """The message that a client puts together, checking the order of events."""
    assert stream[0]["type"] == "message_start"
    assert [event["type"] for event in stream[-2:]] == ["message_delta", "message_stop"]
    found: dict[str, Any] = stream[0]["message"]
    assert (found["content"], found["stop_reason"], found["stop_sequence"]) == ([], None, None)
    opened: dict[str, Any] | None = None
    for event in stream[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert opened is None
                opened = event["content_block"]
                assert event["index"] == len(found["content"])
                assert "signature" not in opened
                found["content"].append(opened)
            case "content_block_delta":
                assert opened is not None
                assert event["index"] == len(found["content"]) - 1
                delta = event["delta"]
                match delta["type"]:
                    case "text_delta" | "thinking_delta" as kind:
                        field = kind.removesuffix("_delta")
                        assert delta[field]
                        assert "signature" not in opened
                        opened[field] += delta[field]
                    case "signature_delta":
                        assert "signature" not in opened
                        opened["signature"] = delta["signature"]
                    case "input_json_delta":
                        assert opened["input"] == {}
                        opened["input"] = orjson.loads(delta["partial_json"])
            case "content_block_stop":
                assert opened is not None
                assert event["index"] == len(found["content"]) - 1
                opened = None
            case other:
                raise AssertionError(other)
    assert opened is None
    ending = stream[-2]
    return {**found, **ending["delta"], "usage": ending["usage"]}


@pytest.mark.parametrize(
    "given",
    [{}, THINKING, {"max_tokens": 3}, {"max_tokens": 3, **THINKING}, {"stop_sequences": ["l", "s", "o"]}],
    ids=["text", "thinking", "cut off", "cut off in thoughts", "stop"],
)
async def test_a_stream_adds_up_to_the_reply(client: apps.Client, given: dict[str, Any]) -> None:
    await message(client, **given)  # so that both find the same in the cache
    whole = await message(client, **given)
    stream = await events(client, **given)
    found = assembled(stream)
    assert found.pop("id") != whole.pop("id")
    assert found == whole


async def test_the_usage_at_the_start_is_provisional(client: apps.Client) -> None:
    await message(client)
    stream = await events(client)
    prompt = sum(stream[-2]["usage"][name] for name in ("input_tokens", "cache_read_input_tokens"))
    assert stream[-2]["usage"]["cache_read_input_tokens"] > 0
    assert stream[0]["message"]["usage"] == {
        "input_tokens": prompt,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "output_tokens": 0,
    }


async def test_hidden_thinking_is_an_empty_block(client: apps.Client) -> None:
    shown = assembled(await events(client, **THINKING))["content"]
    stream = await events(client, thinking={**THINKING["thinking"], "display": "omitted"})
    assert assembled(stream)["content"] == [{**shown[0], "thinking": ""}, shown[1]]
    assert "thinking_delta" not in [event["delta"]["type"] for event in stream if event["type"].endswith("block_delta")]


async def test_a_call_is_a_block_with_all_of_its_input_at_once(client: apps.Client, engine: FastEngine) -> None:
    both = written("weather", '{"n": 123456789012345678901}') + written("clock", "{}")
    engine.script.append(f"One moment.{both}")
    stream = await events(client, tools=[WEATHER_TOOL, CLOCK_TOOL])
    inputs = [event["delta"]["partial_json"] for event in stream if "partial_json" in event.get("delta", {})]
    assert inputs == ['{"n":123456789012345678901}', "{}"]
    found = assembled(stream)
    assert [block["type"] for block in found["content"]] == ["text", "tool_use", "tool_use"]
    assert [block.get("name") for block in found["content"]] == [None, "weather", "clock"]
    assert len({block["id"] for block in found["content"][1:]}) == 2
    assert all(block["id"].startswith("toolu_") for block in found["content"][1:])
    assert found["stop_reason"] == "tool_use"


async def test_a_failure_before_the_first_token_is_told_by_its_status(client: apps.Client, engine: FastEngine) -> None:
    engine.generate_gate.clear()
    asked = asyncio.create_task(client.post(MESSAGES, json=asking(max_tokens=9, stream=True)))
    await until(lambda: engine.running)
    engine.kill()
    async with await asked as response:
        assert response.status == 503
        assert (await response.json())["error"]["type"] == "overloaded_error"


async def test_a_failure_after_it_is_an_event(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        asked = asyncio.create_task(client.post(MESSAGES, json=asking(max_tokens=9, stream=True)))
        await until(lambda: engine.running)
        engine.step(2)
        async with await asked as response:
            start = await response.content.readuntil(b"\n\n")
            engine.kill()
            stream = parsed_events(start + await response.content.read())
        assert stream[0]["type"] == "message_start"
        assert stream[-1].keys() == {"type", "error", "request_id"}
        assert stream[-1]["error"]["type"] == "overloaded_error"
        assert counters(client).requests_failed == 1


async def test_a_client_that_leaves_ends_the_generation(client: apps.Client, engine: FastEngine) -> None:
    engine.generate_gate.clear()
    asked = asyncio.create_task(client.post(MESSAGES, json=asking(max_tokens=9, stream=True)))
    await until(lambda: engine.running)
    asked.cancel()
    await until(lambda: not engine.running)
    assert counters(client).requests_cancelled == 1
