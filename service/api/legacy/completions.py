"""The old generation's completions: one prompt, one text."""

from __future__ import annotations

import secrets
import time

from aiohttp import web

from service.api.conversation import with_thinking
from service.api.legacy.protocol import CompletionBody, CompletionChoice, CompletionObject, CompletionUsage
from service.api.legacy.refusals import renaming
from service.api.replies import answering
from service.bodies import read_model, respond
from service.core import CORE
from streams.engine.base import Sampling
from streams.messages import Conversation, Message, Shape

_TEXT = Shape(choice="none")


async def complete(request: web.Request) -> web.Response:
    """Complete a prompt.

    It is put as the one message of a user: models that are served here expect their chat template around everything.
    """
    started = time.monotonic()
    body = await read_model(request, CompletionBody)
    engine = request.app[CORE].manager.engine
    options = with_thinking({}, False, forced=False, dialect=engine.dialect)
    conversation = Conversation((Message("user", body.prompt),), options=options)
    sampling = Sampling(max_tokens=body.max_tokens, temperature=body.temperature, top_p=body.top_p)
    with renaming({"messages": "prompt"}):
        async with answering(request, conversation, _TEXT, sampling, None, started) as answer:
            reply = await answer.finish()
    completion = CompletionObject(
        id=f"cmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=engine.facts.name,
        choices=[
            CompletionChoice(
                text=reply.message.content, finish_reason="length" if reply.finish_reason == "length" else "stop"
            )
        ],
        usage=CompletionUsage(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            total_tokens=reply.prompt_tokens + reply.completion_tokens,
        ),
    )
    return respond(request, completion.model_dump())
