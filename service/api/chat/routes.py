"""OpenAI's chat completions: thin handlers over the chat core."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from aiohttp import web

from service.api.chat.protocol import ChatTurnBody
from service.api.chat.replies import ChatCompletion, Writer
from service.api.fields import SESSION_HEADER
from service.api.legacy.kind import chat_session
from service.api.replies import Answer, answering
from service.api.requests import await_entries, openai_failure
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import DONE, data_frame, stream_answer
from service.openapi import Operation


async def complete(request: web.Request) -> web.StreamResponse:
    started = time.monotonic()
    body = await read_model(request, ChatTurnBody)
    session = chat_session(request, body.session_id)
    engine = request.app[CORE].manager.engine
    shape, sampling = body.shape, body.sampling
    conversation = body.conversation(engine.dialect, forced=shape.forced)
    await await_entries(request, session, body.after)
    writer = Writer(body, engine)
    async with answering(request, conversation, shape, sampling, session, started) as answer:
        if body.stream:
            return await stream_answer(request, _frames(writer, answer), openai_failure(request, answer.run))
        return respond(request, writer.whole(await answer.finish()))


async def _frames(writer: Writer, answer: Answer) -> AsyncGenerator[bytes, None]:
    async with aclosing(answer.deltas()) as deltas, aclosing(writer.chunks(answer.reply, deltas)) as chunks:
        async for chunk in chunks:
            yield data_frame(chunk)
    yield DONE


OPERATIONS = (
    Operation(
        method="POST",
        path="/v1/chat/completions",
        handler=complete,
        tag="Chat",
        summary="Continue a conversation (OpenAI)",
        description="Alone, or as a durable turn of a session: what that holds already is not computed again. A stream "
        "ends with `data: [DONE]`. From a base model, which gets a plain template, the response has the header "
        "`X-Chat-Template: plain`.",
        request=ChatTurnBody,
        response=ChatCompletion,
        headers={SESSION_HEADER: "The session this is a turn of."},
        content_types=("text/event-stream",),
        statuses={
            404: "Unknown session.",
            409: "The session is in the middle of a turn.",
            429: "Too many requests at once.",
            503: "The engine or the KV cache is not available.",
        },
    ),
)
