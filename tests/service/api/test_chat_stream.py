"""Chat completions over HTTP: streams."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from tests import apps
from tests.apps import core, ok, until
from tests.engine.fast import WORDS, FastEngine
from tests.service.api.asking import DONE, SteppedEngine, counters
from tests.service.api.talking import CHAT, CLOCK, IN_SESSION, WEATHER, asking, chunks, complete, written


def deltas(stream: list[Any]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in stream if chunk["choices"]]


def joined(stream: list[Any], field: str) -> str:
    return "".join(delta.get(field) or "" for delta in deltas(stream))


async def test_a_stream_is_the_role_the_content_and_the_end(client: apps.Client) -> None:
    whole = await complete(client)
    stream = await chunks(client)
    assert len({(chunk["id"], chunk["created"]) for chunk in stream}) == 1
    for chunk in stream:
        assert (chunk["object"], chunk["model"]) == ("chat.completion.chunk", "fast")
        assert chunk.keys() == {"id", "object", "created", "model", "choices"}
        assert chunk["choices"][0]["index"] == 0
    first, *pieces, last = deltas(stream)
    assert first == {"role": "assistant", "content": ""}
    assert all(piece.keys() == {"content"} and piece["content"] for piece in pieces)
    assert last == {}
    assert joined(stream, "content") == whole["choices"][0]["message"]["content"]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in stream]
    assert reasons == [None] * (len(stream) - 1) + ["stop"]


async def test_reasoning_comes_before_content(client: apps.Client) -> None:
    whole = (await complete(client, reasoning_effort="high"))["choices"][0]["message"]
    stream = await chunks(client, reasoning_effort="high")
    kinds = [next(iter(delta), "end") for delta in deltas(stream)]
    assert kinds == sorted(kinds, key=["role", "reasoning", "content", "end"].index)
    assert kinds.count("reasoning") > 1
    assert joined(stream, "reasoning") == whole["reasoning"]
    assert joined(stream, "content") == whole["content"]


@pytest.mark.parametrize("bound", [{}, {"max_tokens": 6}], ids=["whole", "cut off"])
async def test_reasoning_in_one_piece(client: apps.Client, bound: dict[str, Any]) -> None:
    stream = await chunks(client, reasoning_effort="high", stream_reasoning=False, **bound)
    thoughts = [delta["reasoning"] for delta in deltas(stream) if "reasoning" in delta]
    assert len(thoughts) == 1
    assert thoughts[0] == "It may" if bound else thoughts[0].startswith("It may be ")


async def test_reasoning_can_be_left_out_or_in(client: apps.Client) -> None:
    out = await chunks(client, reasoning_effort="high", include_reasoning=False)
    assert all("reasoning" not in delta for delta in deltas(out))
    assert joined(out, "content") in WORDS
    inside = await chunks(client, reasoning_effort="high", separate_reasoning=False)
    assert all("reasoning" not in delta for delta in deltas(inside))
    assert "</think>" in joined(inside, "content")


async def test_each_call_is_two_chunks(client: apps.Client, engine: FastEngine) -> None:
    engine.script.append("One moment." + written("weather", '{"city": "Oslo"}') + written("clock", "{}"))
    stream = await chunks(client, tools=[WEATHER, CLOCK])
    assert joined(stream, "content") == "One moment."
    parts = [delta["tool_calls"] for delta in deltas(stream) if "tool_calls" in delta]
    assert all(len(part) == 1 for part in parts)
    (first,), (second,), (third,), (fourth,) = parts
    assert first.pop("id") != third.pop("id")
    assert first == {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}}
    assert second == {"index": 0, "function": {"arguments": '{"city":"Oslo"}'}}
    assert third == {"index": 1, "type": "function", "function": {"name": "clock", "arguments": ""}}
    assert fourth == {"index": 1, "function": {"arguments": "{}"}}
    assert stream[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_usage_has_a_chunk_of_its_own(client: apps.Client) -> None:
    *others, last = await chunks(client, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in others)
    assert others[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    without = await chunks(client, stream_options={"include_usage": False})
    assert all("usage" not in chunk for chunk in without)


async def test_all_log_probabilities_come_at_the_end(client: apps.Client) -> None:
    *others, last = await chunks(client, logprobs=True, top_logprobs=1)
    assert all("logprobs" not in chunk["choices"][0] for chunk in others)
    text = "".join(delta["content"] for delta in deltas(others))
    entries = last["choices"][0]["logprobs"]["content"]
    assert bytes(byte for entry in entries[:-1] for byte in entry["bytes"]) == text.encode()


async def test_nothing_is_sent_before_the_first_token(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        asked = asyncio.create_task(client.post(CHAT, json=asking(stream=True, max_tokens=2)))
        await until(lambda: engine.running)
        engine.step(1)
        await asyncio.sleep(0.05)
        assert not asked.done()
        engine.step(1)
        async with await asked as response:
            opener = await response.content.readuntil(b"\n\n")
            assert orjson.loads(opener[6:])["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            engine.step(10)
            assert (await response.content.read()).endswith(b"\n\n" + DONE)


async def test_a_failure_before_the_first_token_is_told_by_its_status(client: apps.Client, engine: FastEngine) -> None:
    engine.generate_gate.clear()
    asked = asyncio.create_task(client.post(CHAT, json=asking(stream=True)))
    await until(lambda: engine.running)
    engine.kill()
    async with await asked as response:
        assert response.status == 503
    assert counters(client).requests_failed == 1


async def test_a_failure_after_it_is_told_in_the_stream(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        asked = asyncio.create_task(client.post(CHAT, json=asking(stream=True), headers=IN_SESSION))
        await until(lambda: engine.running)
        engine.step(2)
        async with await asked as response:
            assert response.status == 200
            await response.content.readuntil(b"\n\n")
            engine.kill()
            rest = (await response.content.read()).split(b"\n\n")
        assert rest[-2:] == [b"data: [DONE]", b""]
        error = orjson.loads(rest[-3][6:])["error"]
        assert (error["type"], error["code"]) == ("overloaded_error", "engine_unavailable")
        assert counters(client).requests_failed == 1
        assert counters(client).session_turns == 0
        assert core(client).manager.get("s").version == 0


async def test_a_client_that_leaves_ends_the_generation(client: apps.Client, engine: FastEngine) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})
    engine.generate_gate.clear()
    for streamed in (False, True):
        asked = asyncio.create_task(client.post(CHAT, json=asking(stream=streamed), headers=IN_SESSION))
        await until(lambda: engine.running)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await until(lambda: not engine.running)
    engine.generate_gate.set()
    assert counters(client).requests_cancelled == 2
    session = await ok(client, "GET", "/v1/sessions/s")
    assert (session["busy"], session["turns"]) == (False, 0)
