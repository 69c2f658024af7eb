"""What tests of chat share: turns in one line, and the text a stream has become."""

from __future__ import annotations

import asyncio
from typing import Any

from streams.chat import Warmed
from streams.engine.base import Sampling
from streams.manager import Manager
from streams.messages import Conversation, Message, Shape, Tool, ToolCall
from streams.reply import Reply
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS

WEATHER = Tool("weather", "Looks it up.", {"type": "object", "properties": {"city": {"type": "string"}}})


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str, *calls: ToolCall, reasoning: str | None = None) -> Message:
    return Message("assistant", text, calls=calls, reasoning=reasoning)


def conversation(*messages: Message, tools: tuple[Tool, ...] = (), **options: object) -> Conversation:
    return Conversation(messages, tools, options)


async def say(
    manager: Manager, session: Session | None, asked: Conversation, shape: Shape | None = None, **sampling: Any
) -> Reply:
    """A finished reply."""
    wanted = Sampling(**{"max_tokens": 2**31, **sampling})
    async with asyncio.timeout(SECONDS), manager.chat.reply(asked, shape or Shape(), wanted, session) as reply:
        async for _ in reply.deltas():
            pass
    return reply


async def warm(manager: Manager, session: Session, asked: Conversation) -> Warmed:
    async with asyncio.timeout(SECONDS):
        return await manager.chat.warm(session, asked)


def stream_text(engine: FastEngine, session: Session) -> str:
    """The whole stream, markup and all."""
    return engine.tokenizer.decode(session.timeline.tokens)
