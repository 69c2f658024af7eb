"""Anthropic's messages: thin handlers over the chat core."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from service.api.fields import SESSION_HEADER
from service.api.legacy.kind import chat_session
from service.api.messages.protocol import CountBody, MessagesBody
from service.api.messages.replies import MessageReply, TokenCount, Writer
from service.api.replies import Answer, answering
from service.api.requests import anthropic_failure, await_entries
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import event_frame, stream_answer
from service.openapi import Operation


async def create(request: web.Request) -> web.StreamResponse:
    started = time.monotonic()
    body = await read_model(request, MessagesBody)
    session = chat_session(request, body.session_id)
    engine = request.app[CORE].manager.engine
    conversation = body.conversation(engine.dialect)
    await await_entries(request, session, body.after)
    writer = Writer(engine, shows_thinking=body.shows_thinking)
    async with answering(request, conversation, body.shape, body.sampling, session, started) as answer:
        if body.stream:
            return await stream_answer(request, _frames(writer, answer), anthropic_failure(request, answer.run))
        return respond(request, writer.whole(await answer.finish()))


async def _frames(writer: Writer, answer: Answer) -> AsyncGenerator[bytes, None]:
    async with aclosing(answer.deltas()) as deltas, aclosing(writer.events(answer.reply, deltas)) as events:
        async for kind, payload in events:
            yield event_frame(kind, payload)


async def count(request: web.Request) -> web.Response:
    body = await read_model(request, CountBody)
    manager = request.app[CORE].manager
    tokens = await manager.chat.count(body.conversation(manager.engine.dialect))
    return respond(request, {"input_tokens": tokens})


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/messages",
        handler=create,
        tag="Chat",
        summary="Continue a conversation (Anthropic)",
        description="Alone, or as a durable turn of a session: what that holds already is not computed again. A stream "
        "ends with `message_stop`. From a base model, which gets a plain template, the response has the header "
        "`X-Chat-Template: plain`.",
        request=MessagesBody,
        response=MessageReply,
        headers={SESSION_HEADER: "The session this is a turn of."},
        content_types=("text/event-stream",),
        statuses={
            404: "Unknown session.",
            409: "The session is in the middle of a turn.",
            429: "Too many requests at once.",
            503: "The engine or the KV cache is not available.",
        },
    ),
    Operation(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=count,
        tag="Chat",
        summary="Count the tokens of a conversation (Anthropic)",
        description="Of the whole prompt: system prompt, messages, tools, and what thinking adds. Nothing is "
        "generated, and no session is looked at.",
        request=CountBody,
        response=TokenCount,
    ),
)
