"""Forced calls of the default model, forty of them: whatever it makes of the question, the arguments are valid."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import pytest

from streams.engine.base import Sampling
from streams.engine.vllm import VllmEngine
from streams.manager import Limits, Manager
from streams.messages import Conversation, Message, Shape, Tool
from tests.streams.kit import InstantLog

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "priority": {"type": "string", "enum": ["low", "normal", "high"]},
        "days": {"type": "integer", "minimum": 0, "maximum": 90},
        "urgent": {"type": "boolean"},
        "labels": {"type": "array", "items": {"type": "string"}},
        "owner": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "level": {"type": "number"}},
            "required": ["name"],
            "additionalProperties": False,
        },
        "note": {"type": "string"},
    },
    "required": ["title", "priority", "days", "urgent", "labels", "owner"],
    "additionalProperties": False,
}
TOOLS = (
    Tool("ticket", "Opens a ticket.", SCHEMA),
    Tool("weather", "Looks it up.", {"type": "object", "properties": {"city": {"type": "string"}}}),
)


@pytest.mark.timeout(600)
async def test_forty_forced_calls_are_valid(vllm_engine: VllmEngine) -> None:
    async with Manager(vllm_engine, Limits(questions=100), InstantLog()) as manager:

        async def call(number: int) -> None:
            asked = Conversation((Message("user", f"Pump {number} leaks. Open a ticket."),), TOOLS)
            shape = Shape(choice="named", tool="ticket") if number % 2 else Shape(choice="required", parallel=False)
            sampling = Sampling(max_tokens=200, temperature=0.6 + 0.1 * (number % 5), seed=number)
            async with manager.chat.reply(asked, shape, sampling) as reply:
                async for delta in reply.deltas():
                    assert not delta.content
            assert reply.finish_reason == "tool_calls", reply.message.raw
            (made,) = reply.message.calls
            schemas = {tool.name: tool.parameters for tool in TOOLS}
            jsonschema.validate(json.loads(made.arguments), schemas[made.name])

        results = await asyncio.gather(*map(call, range(40)), return_exceptions=True)
    failures = [result for result in results if result is not None]
    assert not failures, (len(failures), failures[0])
