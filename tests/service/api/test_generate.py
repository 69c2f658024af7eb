"""Questions over HTTP: parameters, answers and frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from streams.engine.base import Piece, Priority, Sampling
from tests import apps
from tests.apps import call, core, ok, settled, until
from tests.engine.fast import WORDS, FastEngine
from tests.service.api.asking import DONE, GENERATE, SESSION, SteppedEngine, counters, stream


class RecordingEngine(FastEngine):
    """Keeps what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.samplings: list[Sampling] = []

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        self.samplings.append(sampling)
        return super().generate(tokens, sampling, priority, rank)


@pytest.fixture(autouse=True)
async def _session(client: apps.Client) -> None:
    await ok(client, "POST", "/v1/sessions", {"id": "s"})


async def push(client: apps.Client, data: str = "x") -> None:
    await ok(client, "POST", f"{SESSION}/push", {"data": data})
    await settled(client, "s")


async def test_an_answer_says_what_it_is_and_what_it_cost(client: apps.Client, engine: FastEngine) -> None:
    await push(client, "12:00 boiler 71.5 C")
    answer = await ok(client, "POST", GENERATE, {"prompt": "Größer?", "temperature": 0})
    assert answer.pop("id").startswith("gen_")
    assert answer.pop("text") in WORDS
    usage = answer.pop("usage")
    assert answer == {
        "object": "session.generation",
        "session_id": "s",
        "finish_reason": "stop",
        "data_version": 1,
    }
    tokenizer = engine.tokenizer
    messages = [{"role": "user", "content": "12:00 boiler 71.5 C\nGrößer?"}]
    prompt = len(tokenizer.encode_markup(tokenizer.render(messages, {})))
    resident = core(client).manager.get("s").kv_tokens
    assert usage == {
        "prompt_tokens": prompt,
        "completion_tokens": usage["completion_tokens"],
        "total_tokens": prompt + usage["completion_tokens"],
        "prompt_tokens_details": {"cached_tokens": resident // 16 * 16},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    cost = counters(client)
    assert (cost.requests_started, cost.requests_ok, cost.requests_failed, cost.requests_cancelled) == (1, 1, 0, 0)
    assert (cost.prompt_tokens, cost.generated_tokens) == (prompt, usage["completion_tokens"])
    assert cost.session_cached_tokens == resident // 16 * 16


async def test_an_empty_stream_can_be_asked(client: apps.Client) -> None:
    answer = await ok(client, "POST", GENERATE, {"prompt": "Hello?"})
    assert (answer["data_version"], answer["usage"]["prompt_tokens_details"]) == (0, {"cached_tokens": 0})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"temperature": 0.6, "top_p": 0.9, "seed": None, "ignore_eos": False, "stop": ()}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 5}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"temperature": 2, "top_p": 1}, {"temperature": 2.0, "top_p": 1.0}),
        ({"seed": -1}, {"seed": -1}),
        ({"ignore_eos": True, "max_tokens": 3}, {"ignore_eos": True}),
        ({"stop": "\n"}, {"stop": ("\n",)}),
        ({"stop": ["a", "b", "c", "ü" * 32]}, {"stop": ("a", "b", "c", "ü" * 32)}),
        ({"stop": []}, {"stop": ()}),
        ({"stop": None, "max_tokens": None, "seed": None}, {"stop": (), "seed": None}),
        ({"chat_template_kwargs": {"add_generation_prompt": True}}, {}),
    ],
)
async def test_parameters_reach_the_engine(
    redis: Redis, tmp_path: Path, given: dict[str, Any], expected: dict[str, Any]
) -> None:
    engine = RecordingEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        await ok(client, "POST", GENERATE, {"prompt": "What?", **given})
    (sampling,) = engine.samplings
    assert {name: getattr(sampling, name) for name in expected} == expected


async def test_an_answer_without_a_bound_ends_where_the_context_does(redis: Redis, tmp_path: Path) -> None:
    await redis.flushall()
    async with apps.serving(redis, tmp_path, FastEngine(context=512, kv_capacity=4096)) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        answer = await ok(client, "POST", GENERATE, {"prompt": "Go on.", "ignore_eos": True})
        assert answer["finish_reason"] == "length"
        assert answer["usage"]["total_tokens"] <= 512


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["x"]}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"max_tokens": 1.0}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"seed": 2**63}, "seed"),
        ({"ignore_eos": 1}, "ignore_eos"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": "x" * 65}, "stop"),
        ({"stop": ["ü" * 33]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 1]}, "stop.1"),
        ({"reasoning_effort": "maximal"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"add_generation_prompt": False}}, "chat_template_kwargs.add_generation_prompt"),
        ({"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs.tools"),
        ({"stream": "yes"}, "stream"),
        ({"after": -1}, "after"),
        ({"messages": []}, "messages"),
        ({"fast_answer": True}, "fast_answer"),
        ({"fast_answer": "up"}, "fast_answer"),
        ({"fast_answer": [""]}, "fast_answer.0"),
        ({"fast_answer": ["up", 1]}, "fast_answer.1"),
        ({"fast_answer": ["ü" * 65]}, "fast_answer.0"),
        ({"fast_answer": ["up"] * 65}, "fast_answer"),
        ({"gap_threshold": -0.1}, "gap_threshold"),
        ({"gap_threshold": "2"}, "gap_threshold"),
        ({"n": 2}, "n"),
    ],
)
async def test_bad_parameters_are_refused_by_name(client: apps.Client, body: dict[str, Any], param: str) -> None:
    prompt = {} if body == {} or "prompt" in body else {"prompt": "What?"}
    status, reply = await call(client, "POST", GENERATE, prompt | body)
    assert (status, reply["error"]["param"]) == (400, param)
    assert counters(client).requests_started == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_prompt_beyond_the_context_is_refused_before_anything_runs(
    client: apps.Client, engine: FastEngine, streamed: bool
) -> None:
    status, reply = await call(client, "POST", GENERATE, {"prompt": "x" * 4096, "stream": streamed})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (400, "context_length_exceeded", "prompt")
    assert engine.calls == []


# Streams


async def test_a_stream_is_text_frames_a_done_frame_and_the_end(client: apps.Client) -> None:
    await push(client)
    ask = {"prompt": "What?", "temperature": 0}
    whole = await ok(client, "POST", GENERATE, ask)
    *pieces, done = await stream(client, **ask)
    assert all(piece.keys() == {"text"} and piece["text"] for piece in pieces)
    assert "".join(piece["text"] for piece in pieces) == whole.pop("text")
    assert done.pop("done") is True
    assert done.pop("id") != whole.pop("id")
    # The second time, all of the prompt's full blocks were there.
    assert done.pop("usage").keys() == whole.pop("usage").keys()
    assert done == whole


async def test_the_bytes_of_a_stream(redis: Redis, tmp_path: Path) -> None:
    engine = SteppedEngine()
    await redis.flushall()
    async with apps.serving(redis, tmp_path, engine) as client:
        await ok(client, "POST", "/v1/sessions", {"id": "s"})
        asking = asyncio.create_task(
            client.post(GENERATE, json={"prompt": "What?", "stream": True, "max_tokens": 2, "temperature": 0})
        )
        await until(lambda: engine.running)
        engine.step(2)
        async with await asking as response:
            first = await response.content.readuntil(b"\n\n")
            engine.step(10)
            rest = await response.content.read()
    letter = orjson.loads(first[6:])["text"]
    assert first == f'data: {{"text":"{letter}"}}\n\n'.encode()
    second, done, end = rest.split(b"\n\n", 2)
    assert second.startswith(b'data: {"text":"')
    assert done.startswith(b'data: {"id":"gen_')
    assert b'"done":true' in done
    assert end == DONE
