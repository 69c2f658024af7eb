"""Questions over a stream, answered whole or piece by piece."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from aiohttp import web

from service.api.requests import await_entries, openai_failure
from service.api.runs import Run, running
from service.api.sessions.protocol import GenerateBody, Generation, PromptTokensDetails, Usage
from service.bodies import read_model, respond
from service.core import CORE
from service.delivery.sse import DONE, HEADERS, data_frame, stream_answer
from service.keys import METRICS
from streams.engine.base import FinishReason, Piece
from streams.errors import EngineUnavailable
from streams.questions import Prompt
from streams.session import Session


async def generate(request: web.Request, session: Session) -> web.StreamResponse:
    """Answer a question over ``session``."""
    body = await read_model(request, GenerateBody)
    core = request.app[CORE]
    started = time.monotonic()
    session.touch()
    await await_entries(request, session, body.after)
    questions = core.manager.questions
    options = body.template_options
    if questions.plain(session, options):
        hit = await _from_cache(request, session, body.prompt, started)
        if hit is not None:
            return _stream_hit(hit) if body.stream else _respond(request, hit)
    prompt = questions.prompt(session, questions.encode(body.prompt), options=options)
    with questions.foreground(session), running(request.app[METRICS], started, len(prompt.tokens)) as run:
        answer = _Answer(session, prompt, run)
        async with aclosing(questions.ask(prompt, body.sampling)) as pieces:
            if body.stream:
                return await stream_answer(request, answer.frames(pieces), openai_failure(request, run))
            return _respond(request, await answer.whole(pieces))


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
class _Answer:
    """One computed answer, and what it cost so far."""

    session: Session
    prompt: Prompt
    run: Run
    text: list[str] = field(default_factory=list)
    cached: int = 0
    completion: int = 0
    finish_reason: FinishReason | None = None

    async def whole(self, pieces: AsyncGenerator[Piece, None]) -> Generation:
        """All of it at once."""
        async for piece in pieces:
            self._take(piece)
        return self._result().model_copy(update={"text": "".join(self.text)})

    async def frames(self, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
        """The same piece by piece."""
        async for piece in pieces:
            self._take(piece)
            if piece.text:
                yield data_frame({"text": piece.text})
        yield data_frame(_done(self._result())) + DONE

    def _take(self, piece: Piece) -> None:
        self.run.step(len(piece.token_ids), session_cached=piece.cached_tokens)
        self.text.append(piece.text)
        self.cached = piece.cached_tokens
        self.completion += len(piece.token_ids)
        self.finish_reason = piece.finish_reason or self.finish_reason

    def _result(self) -> Generation:
        """Everything about the answer but its text.

        Raises:
            EngineUnavailable: the engine stopped before the answer was complete.
        """
        if self.finish_reason is None:
            raise EngineUnavailable("the engine stopped before the answer was complete; try again", retry_after=5)
        self.run.succeeded()
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


def _stream_hit(hit: Generation) -> web.Response:
    return web.Response(body=data_frame({"text": hit.text}) + data_frame(_done(hit)) + DONE, headers=HEADERS)


def _done(generation: Generation) -> dict[str, object]:
    return generation.model_copy(update={"text": None, "done": True}).model_dump(exclude_none=True)


def _respond(request: web.Request, generation: Generation) -> web.Response:
    return respond(request, generation.model_dump(exclude_none=True))


def _new_id() -> str:
    return f"gen_{secrets.token_hex(12)}"
