"""Questions over a stream, answered whole or piece by piece."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from aiohttp import web

from service.api.sessions.protocol import GenerateBody, Generation, PromptTokensDetails, Usage
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import HEADERS, data_frame, write
from service.errors import error_body, request_id
from service.keys import METRICS, SETTINGS
from service.metrics import Metrics
from streams.engine.base import FinishReason, Piece, Sampling
from streams.errors import AskaheadError, EngineUnavailable
from streams.questions import Prompt
from streams.session import Session

_DONE = b"data: [DONE]\n\n"
# More tokens than any context has: the prompt's room decides.
_UNLIMITED = 2**31


async def generate(request: web.Request, session: Session) -> web.StreamResponse:
    """Answer a question over ``session``."""
    body = await read_model(request, GenerateBody)
    core = request.app[CORE]
    started = time.monotonic()
    session.touch()
    if body.after is not None:
        with session.pinned():
            await session.resident(body.after, request.app[SETTINGS].wait_seconds_max)
    questions = core.manager.questions
    options = body.template_options
    if questions.plain(session, options):
        hit = await _from_cache(request, session, body.prompt, started)
        if hit is not None:
            return await _send_hit(request, hit) if body.stream else _respond(request, hit)
    prompt = questions.prompt(session, questions.encode(body.prompt), options=options)
    sampling = Sampling(
        max_tokens=body.max_tokens or body.max_completion_tokens or _UNLIMITED,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        ignore_eos=body.ignore_eos,
        stop=body.stops,
    )
    with questions.foreground(session):
        pieces = questions.ask(prompt, sampling)
        run = _Run(session, prompt, request.app[METRICS], started)
        try:
            return await (_stream if body.stream else _whole)(request, run, pieces)
        except BaseException as error:
            run.failed(error)
            raise
        finally:
            await pieces.aclose()


async def _from_cache(request: web.Request, session: Session, text: str, started: float) -> Generation | None:
    hit = await request.app[CORE].flash.match(session, text)
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


@dataclass(slots=True)
class _Run:
    """One computed answer: counts while it runs, and says what it cost."""

    session: Session
    prompt: Prompt
    metrics: Metrics
    started: float
    cached: int = 0
    completion: int = 0
    finish_reason: FinishReason | None = None
    first_seen: bool = False
    ended: bool = False

    def __post_init__(self) -> None:
        self.metrics.counters.requests_started += 1
        self.metrics.counters.prompt_tokens += len(self.prompt.tokens)

    def count(self, piece: Piece) -> None:
        """Take note of a piece."""
        counters = self.metrics.counters
        if not self.first_seen:
            self.first_seen = True
            self.cached = piece.cached_tokens
            self.metrics.generate_first_token.observe(time.monotonic() - self.started)
            counters.session_cached_tokens += self.cached
        counters.steps += 1
        counters.generated_tokens += len(piece.token_ids)
        self.completion += len(piece.token_ids)
        self.finish_reason = piece.finish_reason or self.finish_reason

    def failed(self, error: BaseException) -> None:
        """Take note of how it ended, if not well."""
        if self.ended:
            return
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            self.metrics.counters.requests_cancelled += 1
        else:
            self.metrics.counters.requests_failed += 1

    def result(self) -> Generation:
        """Everything about the answer but its text.

        Raises:
            EngineUnavailable: the engine stopped before the answer was complete.
        """
        if self.finish_reason is None:
            raise EngineUnavailable("the engine stopped before the answer was complete; try again", retry_after=5)
        self.ended = True
        self.metrics.counters.requests_ok += 1
        self.metrics.generate_total.observe(time.monotonic() - self.started)
        prompt_tokens = len(self.prompt.tokens)
        return Generation(
            id=_new_id(),
            session_id=self.session.id,
            finish_reason=self.finish_reason,
            data_version=self.prompt.version,
            usage=Usage(
                prompt_tokens=prompt_tokens,
                completion_tokens=self.completion,
                total_tokens=prompt_tokens + self.completion,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=self.cached),
            ),
        )


async def _whole(request: web.Request, run: _Run, pieces: AsyncGenerator[Piece, None]) -> web.StreamResponse:
    text = []
    async for piece in pieces:
        run.count(piece)
        text.append(piece.text)
    return _respond(request, run.result().model_copy(update={"text": "".join(text)}))


async def _stream(request: web.Request, run: _Run, pieces: AsyncGenerator[Piece, None]) -> web.StreamResponse:
    # Until the first token is there a failure can still be told by its status.
    first = await anext(pieces, None)
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    try:
        if first is not None:
            await _write_piece(request, response, run, first)
        async for piece in pieces:
            await _write_piece(request, response, run, piece)
        await write(request, response, data_frame(_done(run.result())) + _DONE)
    except AskaheadError as error:
        run.failed(error)
        run.ended = True
        _, body, _ = error_body(error, request.path, request_id(request))
        await write(request, response, data_frame(body) + _DONE)
    return response


async def _write_piece(request: web.Request, response: web.StreamResponse, run: _Run, piece: Piece) -> None:
    run.count(piece)
    if piece.text:
        await write(request, response, data_frame({"text": piece.text}))


async def _send_hit(request: web.Request, hit: Generation) -> web.StreamResponse:
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    await write(request, response, data_frame({"text": hit.text}) + data_frame(_done(hit)) + _DONE)
    return response


def _done(generation: Generation) -> dict[str, object]:
    return generation.model_copy(update={"text": None, "done": True}).model_dump(exclude_none=True)


def _respond(request: web.Request, generation: Generation) -> web.Response:
    return respond(request, generation.model_dump(exclude_none=True))


def _new_id() -> str:
    return f"gen_{secrets.token_hex(12)}"
