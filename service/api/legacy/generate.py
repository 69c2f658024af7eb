"""Answers in the shapes of the old generation: questions that leave nothing behind, and durable turns."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from aiohttp import web

from service.api.chat.protocol import ChatBody
from service.api.chat.replies import Call, wire_call
from service.api.legacy.protocol import GenerateOldBody
from service.api.replies import Answer, answering
from service.api.requests import openai_failure
from service.api.sessions.generate import asking, known
from service.api.sessions.protocol import GenerateBody, Generation
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import HEADERS, data_frame, stream_answer
from streams.reply import Reply
from streams.session import Session

_WORDS = ("up", "down", "flat", "rising", "falling", "steady", "bullish", "bearish", "neutral", "buy", "sell", "hold")
FAST_ANSWERS = tuple(word for plain in (*_WORDS, "yes", "no") for word in (plain, plain.capitalize()))
"""What `fast_answer` may say without asking the model. Streams of candles alone have a ready position to tell."""


async def generate(request: web.Request, session: Session) -> web.StreamResponse:
    """Answer a question over ``session``, or have a turn of it."""
    started = time.monotonic()
    body = await read_model(request, GenerateOldBody)
    session.touch()
    return await (_ask if body.messages is None else _turn)(request, session, body, started)


async def _ask(request: web.Request, session: Session, body: GenerateOldBody, started: float) -> web.StreamResponse:
    question = GenerateBody(
        prompt=body.prompt or "",
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=body.stop,
        fast_answer=FAST_ANSWERS if body.fast_answer else (),
    )
    hit = known(request, session, question, started)
    if hit is not None:
        return _known(request, session, hit, body.stream)
    async with asking(request, session, question, started) as answer:
        return await _answer(request, session, answer, body.stream)


async def _turn(request: web.Request, session: Session, body: GenerateOldBody, started: float) -> web.StreamResponse:
    asked = ChatBody(
        messages=body.messages or [],
        tools=body.tools,
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=body.stop,
    )
    conversation = asked.conversation(request.app[CORE].manager.engine.dialect)
    async with answering(request, conversation, asked.shape, asked.sampling, session, started) as answer:
        return await _answer(request, session, answer, body.stream)


def _known(request: web.Request, session: Session, hit: Generation, stream: bool) -> web.Response:
    text = hit.text or ""
    result = {"text": text, "n_tokens": hit.usage.completion_tokens, "finish_reason": hit.finish_reason}
    kept = ("flash", "flash_id", "data_version", "confidence", "speculative", "logit_gap")
    result |= hit.model_dump(include=set(kept), exclude_none=True)
    if not stream:
        return respond(request, result | _length(session))
    first = data_frame({"token": text, "pos": session.tokens})
    return web.Response(body=first + data_frame({"done": True, **result}), headers=HEADERS)


async def _answer(request: web.Request, session: Session, answer: Answer, stream: bool) -> web.StreamResponse:
    if stream:
        return await stream_answer(request, _frames(answer), openai_failure(request, answer.run, end=b""))
    return respond(request, _result(await answer.finish()) | _length(session))


async def _frames(answer: Answer) -> AsyncGenerator[bytes, None]:
    reply = answer.reply

    def frame(text: str, **more: bool) -> bytes:
        return data_frame({"token": text, "pos": reply.prompt_tokens + reply.completion_tokens - 1, **more})

    async with aclosing(answer.deltas()) as deltas:
        async for delta in deltas:
            if delta.content:
                yield frame(delta.content)
    for call in map(wire_call, reply.message.calls):
        opening, rest = _written(call)
        yield frame(opening, tool_call=True)
        yield frame(rest)
    yield data_frame({"done": True, **_result(reply)})


def _written(call: Call) -> tuple[str, str]:
    """A call as the old generation's models wrote it, cut where its arguments begin."""
    function = call["function"]
    return f'{{"name": "{function["name"]}", "parameters": ', f"{function['arguments']}}}"


def _result(reply: Reply) -> dict[str, Any]:
    result: dict[str, Any] = {
        "text": reply.message.content,
        "n_tokens": reply.completion_tokens,
        "finish_reason": reply.finish_reason,
        "data_version": reply.version,
    }
    if reply.message.calls:
        result["tool_calls"] = [wire_call(call) for call in reply.message.calls]
    return result


def _length(session: Session) -> dict[str, int]:
    return {"total_tokens": session.tokens, "pos_max": session.tokens - 1}
