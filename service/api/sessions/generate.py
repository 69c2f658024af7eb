"""Questions over a stream, answered whole or piece by piece."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from aiohttp import web

from service.api.replies import Answer
from service.api.requests import await_entries, openai_failure
from service.api.runs import running
from service.api.sessions.protocol import (
    CompletionTokensDetails,
    GenerateBody,
    Generation,
    PromptTokensDetails,
    Usage,
)
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import DONE, HEADERS, data_frame, stream_answer
from service.keys import METRICS
from streams.reply import Reply
from streams.session import Session


async def generate(request: web.Request, session: Session) -> web.StreamResponse:
    """Answer a question over ``session``."""
    body = await read_model(request, GenerateBody)
    started = time.monotonic()
    session.touch()
    await await_entries(request, session, body.after)
    hit = known(request, session, body, started)
    if hit is not None:
        return _stream_hit(hit) if body.stream else _respond(request, hit)
    async with asking(request, session, body, started) as answer:
        if body.stream:
            return await stream_answer(request, _frames(session, answer), openai_failure(request, answer.run))
        reply = await answer.finish()
        return _respond(request, _result(session, reply).model_copy(update={"text": reply.message.content}))


def known(request: web.Request, session: Session, body: GenerateBody, started: float) -> Generation | None:
    """The answer, if it is there before it is asked for: a Flash Query's, or what the ready position is sure of.

    Args:
        request: the request.
        session: the stream.
        body: the question.
        started: when the request came, on the monotonic clock.
    """
    if not request.app[CORE].manager.questions.plain(session, body.template_options):
        return None
    return _from_cache(request, session, body.prompt, started) or _from_ready(request, session, body)


@asynccontextmanager
async def asking(request: web.Request, session: Session, body: GenerateBody, started: float) -> AsyncIterator[Answer]:
    """Have a question answered by the model. Arguments as :func:`known`.

    Raises:
        AskaheadError: it cannot be admitted.
    """
    questions = request.app[CORE].manager.questions
    options = body.template_options
    prompt = await questions.prompt(session, questions.encode(body.prompt), options=options)
    with questions.foreground(session), running(request.app[METRICS], started, len(prompt.tokens)) as run:
        reply = questions.reply(prompt, body.sampling, conversation=questions.asked(options))
        async with aclosing(reply):
            yield Answer(reply, run)


def _from_cache(request: web.Request, session: Session, text: str, started: float) -> Generation | None:
    hit = request.app[CORE].flash.match(session, text)
    if hit is None:
        return None
    query, answer = hit
    metrics = request.app[METRICS]
    metrics.counters.session_flash_hits += 1
    metrics.flash_hit.observe(time.monotonic() - started)
    return Generation(
        id=_new_id(),
        session_id=session.id,
        text=answer.value,
        finish_reason=answer.finish_reason,
        data_version=answer.version,
        usage=Usage(),
        flash=True,
        flash_id=query.id,
        confidence=answer.confidence,
    )


def _from_ready(request: web.Request, session: Session, body: GenerateBody) -> Generation | None:
    found = request.app[CORE].flash.guess(session, body.prompt, body.fast_answer, body.gap_threshold)
    if found is None:
        return None
    text, ready = found
    request.app[METRICS].counters.session_ready_exits += 1
    return Generation(
        id=_new_id(),
        session_id=session.id,
        text=text,
        finish_reason="stop",
        data_version=ready.version,
        usage=Usage(),
        speculative=True,
        logit_gap=ready.gap,
    )


async def _frames(session: Session, answer: Answer) -> AsyncGenerator[bytes, None]:
    async with aclosing(answer.deltas()) as deltas:
        async for delta in deltas:
            if delta.content:
                yield data_frame({"text": delta.content})
    yield data_frame(_done(_result(session, answer.reply))) + DONE


def _result(session: Session, reply: Reply) -> Generation:
    """Everything about an answer but its text, which is without the reasoning."""
    details = CompletionTokensDetails(reasoning_tokens=reply.reasoning_tokens) if reply.reasons else None
    return Generation(
        id=_new_id(),
        session_id=session.id,
        finish_reason="length" if reply.finish_reason == "length" else "stop",
        data_version=reply.version or 0,
        usage=Usage(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            total_tokens=reply.prompt_tokens + reply.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=reply.cached_tokens),
            completion_tokens_details=details,
        ),
    )


def _stream_hit(hit: Generation) -> web.Response:
    return web.Response(body=data_frame({"text": hit.text}) + data_frame(_done(hit)) + DONE, headers=HEADERS)


def _done(generation: Generation) -> dict[str, object]:
    return generation.model_copy(update={"text": None, "done": True}).model_dump(exclude_none=True)


def _respond(request: web.Request, generation: Generation) -> web.Response:
    return respond(request, generation.model_dump(exclude_none=True))


def _new_id() -> str:
    return f"gen_{secrets.token_hex(12)}"
