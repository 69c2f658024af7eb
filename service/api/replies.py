"""Running one reply of the chat core for either surface, and counting it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from service.api.runs import Run, running
from service.core import CORE
from service.keys import METRICS
from streams.engine.base import Delta, Sampling
from streams.messages import Conversation, Shape
from streams.reply import Reply
from streams.session import Session


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply that was admitted, and the run that counts it."""

    reply: Reply
    run: Run

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The reply as it comes, counted. Some add nothing: their token is held back, or part of a call.

        Raises:
            EngineUnavailable: the engine stopped before the reply was complete.
        """
        reply, known = self.reply, 0
        async with aclosing(reply.deltas()) as deltas:
            async for delta in deltas:
                self.run.step(
                    reply.completion_tokens - known,
                    session_cached=reply.cached_tokens - reply.prefix_cached_tokens,
                    prefix_cached=reply.prefix_cached_tokens,
                )
                known = reply.completion_tokens
                yield delta
        self.run.succeeded()
        self.run.metrics.counters.tool_calls_malformed += reply.malformed

    async def finish(self) -> Reply:
        """The whole reply. Raises as :meth:`deltas`."""
        async with aclosing(self.deltas()) as deltas:
            async for _ in deltas:
                pass
        return self.reply


@asynccontextmanager
async def answering(
    request: web.Request,
    conversation: Conversation,
    shape: Shape,
    sampling: Sampling,
    session: Session | None,
    started: float,
) -> AsyncIterator[Answer]:
    """Have a reply generated, as a turn of ``session`` if there is one.

    Args:
        request: the request.
        conversation: what to continue.
        shape: what the reply may look like.
        sampling: how to generate it.
        session: see above.
        started: when the request came, on the monotonic clock.

    Raises:
        AskaheadError: as :meth:`streams.chat.Chat.reply`.
    """
    async with request.app[CORE].manager.chat.reply(conversation, shape, sampling, session) as reply:
        with running(request.app[METRICS], started, reply.prompt_tokens) as run:
            yield Answer(reply, run)
