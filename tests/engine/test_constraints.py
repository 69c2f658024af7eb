"""What the real engine says under a constraint, and what it does with those that make no sense."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from streams.engine.base import Constraint, Delta, Engine, FinishReason, Priority, ReplyReader, Sampling
from streams.engine.vllm import EngineOptions, VllmEngine
from streams.errors import InvalidInput
from streams.messages import Conversation, Message, Shape, Tool
from streams.template import Template
from tests.engine.models import QWEN3, renamed

TICKET = Tool(
    "create_ticket",
    "Create a ticket in the tracker.",
    {
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "description": {"type": "string"},
            "priority": {"enum": ["low", "normal", "high"]},
            "hours": {"type": "integer"},
            "urgent": {"type": "boolean"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "place": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "street": {"type": "string"}},
                "required": ["city"],
            },
            "note": {"type": "string"},
        },
        "required": ["title", "description", "priority", "hours", "urgent", "tags", "place"],
    },
)
WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        "required": ["city"],
    },
)
TOOLS = {tool.name: tool for tool in (TICKET, WEATHER)}
ASKED = ["The heating in the Berlin office is broken, report it.", "What's the weather in Oslo?", "Order chairs."]


class Said:
    """A reply, read to its end."""

    def __init__(self, reader: ReplyReader) -> None:
        self.reader = reader
        self.text = ""
        self.delta = Delta()
        self.tokens: list[int] = []
        self.finish: FinishReason | None = None


async def say(engine: Engine, conversation: Conversation, shape: Shape, sampling: Sampling) -> Said:
    prompt = Template(engine.tokenizer, engine.dialect).render(conversation)
    said = Said(reader := engine.dialect.reader(conversation, shape, prompt))
    sampling = replace(sampling, constraint=reader.constraint, keep_markup=reader.keep_markup)
    async for piece in engine.generate(prompt, sampling, Priority.FOREGROUND):
        delta = reader.read(piece)
        said.delta = Delta(said.delta.reasoning + delta.reasoning, said.delta.content + delta.content)
        said.text += piece.text
        said.tokens += piece.token_ids
        said.finish = piece.finish_reason
    return said


def asked(text: str, *tools: Tool) -> Conversation:
    return Conversation((Message("user", text),), tools)


@pytest.mark.parametrize(
    "shape",
    [Shape("named", "create_ticket"), Shape("required"), Shape("required", parallel=False)],
    ids=["named", "required", "one required"],
)
async def test_forced_calls_are_made_and_valid(vllm_engine: VllmEngine, shape: Shape) -> None:
    rng = random.Random(0)
    samplings = [Sampling(200, temperature=rng.uniform(0.6, 1.0), top_p=0.95, seed=seed) for seed in range(8)]
    replies = await asyncio.gather(
        *(
            say(vllm_engine, asked(ASKED[i % len(ASKED)], *TOOLS.values()), shape, sampling)
            for i, sampling in enumerate(samplings)
        )
    )
    for said in replies:
        calls = said.reader.calls()
        assert calls, said.text
        assert len(calls) == 1 or shape.parallel
        assert (said.finish, said.reader.malformed, said.delta.content) == ("stop", False, "")
        for call in calls:
            assert call.name == "create_ticket" or shape.choice == "required"
            jsonschema.validate(json.loads(call.arguments), dict(TOOLS[call.name].parameters or {}))


async def test_content_obeys_a_schema(vllm_engine: VllmEngine) -> None:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "mood": {"enum": ["good", "bad"]}},
        "required": ["city", "mood"],
    }
    replies = await asyncio.gather(
        *(
            say(vllm_engine, asked("Name a city."), Shape(schema=schema), Sampling(100, temperature=1.0, seed=seed))
            for seed in range(4)
        )
    )
    for said in replies:
        jsonschema.validate(json.loads(said.delta.content), schema)
        assert said.finish == "stop"


async def test_a_constraint_is_nobody_else_s_business(vllm_engine: VllmEngine) -> None:
    prompt = vllm_engine.tokenizer.encode("The capital of France is")
    schema = Constraint("json", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    wants = [
        Sampling(8, top_logprobs=3, ignore_eos=True),
        Sampling(8, constraint=schema, top_logprobs=3),
        Sampling(8, constraint=schema),
        Sampling(8, logprob_token_ids=(7, 11), ignore_eos=True),
        Sampling(8, constraint=schema, logprob_token_ids=(7, 11)),
    ]

    async def answer(want: Sampling) -> tuple[str, list[int], list[dict[int, float]]]:
        text, tokens, logprobs = "", list[int](), list[dict[int, float]]()
        async for piece in vllm_engine.generate(prompt, want, Priority.FOREGROUND):
            text += piece.text
            tokens += piece.token_ids
            logprobs += [dict(at) for at in piece.logprobs]
        return text, tokens, logprobs

    alone = [await answer(want) for want in wants]
    together = await asyncio.gather(*(answer(want) for want in wants))
    assert [(text, tokens) for text, tokens, _ in together] == [(text, tokens) for text, tokens, _ in alone]
    for (text, tokens, logprobs), want in zip(together, wants, strict=True):
        assert text.startswith('{"n":') is (want.constraint is not None)
        if want.top_logprobs or want.logprob_token_ids:
            assert len(logprobs) == len(tokens)
            assert all(token in at for token, at in zip(tokens, logprobs, strict=True))
            assert all(value > -100 for at in logprobs for value in at.values())


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json", {"$ref": "#"}),
        ("json", {"$ref": "#/$defs/no"}),
        ("json", {"type": "string", "pattern": "(["}),
        ("json", {"type": "integer", "minimum": 5, "maximum": 3}),
        ("json", {"type": "object", "properties": {"a": False}, "required": ["a"]}),
        ("json", {"type": "strong"}),
        ("json", {"type": "string", "pattern": "^[\\s\\S]{0,256}$"}),
        ("structural_tag", {"a": 1}),
        ("structural_tag", {"type": "structural_tag", "format": {"type": "no"}}),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused_and_harmless(vllm_engine: VllmEngine, kind: Any, value: Any) -> None:
    with pytest.raises(InvalidInput):
        async for _ in vllm_engine.generate([1, 2, 3], Sampling(8, constraint=Constraint(kind, value)), Priority.FLASH):
            pass
    assert not vllm_engine.dead
    async for piece in vllm_engine.generate([1, 2, 3], Sampling(1), Priority.FLASH):
        assert piece.token_ids


async def test_a_stop_sequence_is_told(vllm_engine: VllmEngine) -> None:
    prompt = vllm_engine.tokenizer.encode("One two three one two three one")
    pieces = [
        piece async for piece in vllm_engine.generate(prompt, Sampling(20, stop=(" three",)), Priority.FOREGROUND)
    ]
    assert (pieces[-1].stop, pieces[-1].finish_reason) == (" three", "stop")
    assert {piece.stop for piece in pieces[:-1]} <= {None}


async def test_a_hold_knows_what_was_cached(vllm_engine: VllmEngine) -> None:
    tokens = vllm_engine.tokenizer.encode(" ".join(str(n * 7919) for n in range(60)))[:128]
    for cached in (0, 96):  # the last block is computed again, for the token that is sampled and dropped
        held = vllm_engine.hold(Priority.WARM)
        await held.extend(tokens)
        assert held.cached == cached
        await held.extend(tokens[:5])
        assert held.cached == cached
        await held.release()


# Reasoning


@pytest_asyncio.fixture(scope="module")
async def thinker(engine_options: EngineOptions, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[VllmEngine]:
    """The model with a template that makes it think, until it says what used to be an exclamation mark."""
    names = {"<file_sep>": "<think>", "!": "</think>"}
    path: Path = renamed(engine_options.model, tmp_path_factory.mktemp("thinker"), names, QWEN3)
    engine = await asyncio.to_thread(VllmEngine.load, replace(engine_options, model=path))
    yield engine
    await engine.close()


BIRTHDAY = "Congratulate me, it is my birthday."


async def test_a_constraint_holds_from_the_end_of_the_reasoning_on(thinker: VllmEngine) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    said = await say(thinker, asked(BIRTHDAY), Shape(schema=schema), Sampling(60))
    assert said.delta.reasoning
    assert not said.delta.reasoning.startswith("{")
    assert json.loads(said.delta.content).keys() == {"n"}
    assert 1 < said.reader.reasoning_tokens < len(said.tokens)


async def test_without_reasoning_a_constraint_holds_from_the_start(thinker: VllmEngine) -> None:
    silent = replace(asked(BIRTHDAY, WEATHER), options={"enable_thinking": False})
    said = await say(thinker, silent, Shape("named", "get_weather"), Sampling(200))
    assert said.text.startswith("<tool_call>")
    assert (said.delta.reasoning, len(said.reader.calls()), said.reader.reasoning_tokens) == ("", 1, 0)
