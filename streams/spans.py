"""The spans of what streams do."""

from __future__ import annotations

import time
from types import TracebackType

from streams import tracing
from streams.engine.base import Piece, Sampling
from streams.ingest import Batch
from streams.session import Session


def reading(session: Session, batch: Batch | None) -> tracing.Span:
    """Of reading a batch: part of the oldest trace in which some of it was pushed, and linked to the others."""
    if batch is None or not tracing.on():
        return tracing.OFF
    attributes: tracing.Attributes = {
        "gen_ai.conversation.id": session.id,
        "askahead.entries": len(batch.entries),
        "askahead.tokens": batch.tokens,
    }
    parent, *links = session.backlog.causes.of(batch.last) or [""]
    return tracing.start("batch", attributes, parent=parent, links=links)


class Generation:
    """Of one request to the engine, as a context manager; part of the current span.

    It is never current itself: a generator, where it is used, runs in the context of whoever iterates it.

    Args:
        model: name of the model.
        session: id of the session that is asked; empty without one.
        prompt: length of the prompt, in tokens.
        sampling: how to generate.
    """

    def __init__(self, model: str, session: str, prompt: int, sampling: Sampling) -> None:
        self._begun = time.monotonic()
        self._tokens = 0
        self._span = tracing.OFF
        if not tracing.current():
            return
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "askahead",
            "gen_ai.request.model": model,
            "gen_ai.request.max_tokens": sampling.max_tokens,
            "gen_ai.request.temperature": sampling.temperature,
            "gen_ai.usage.input_tokens": prompt,
        }
        if session:
            attributes["gen_ai.conversation.id"] = session
        self._span = tracing.child(f"text_completion {model}", attributes)

    def piece(self, piece: Piece) -> None:
        """Take note of a piece of the answer."""
        if self._span is tracing.OFF:
            return
        if not self._tokens:
            self._span.set(
                {
                    "gen_ai.response.time_to_first_chunk": time.monotonic() - self._begun,
                    "gen_ai.usage.cache_read.input_tokens": piece.cached_tokens,
                }
            )
        self._tokens += len(piece.token_ids)
        if piece.finish_reason is not None:
            self._span.set({"gen_ai.response.finish_reasons": [piece.finish_reason]})

    def __enter__(self) -> Generation:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._span.set({"gen_ai.usage.output_tokens": self._tokens})
        # Whoever has heard enough closes the generator.
        self._span.end(None if isinstance(error, GeneratorExit) else error)
