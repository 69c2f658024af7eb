"""One reply to a chat request, while it is generated: what it says, and what it cost."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from streams.engine.base import Delta, FinishReason, Piece, ReplyReader
from streams.errors import EngineUnavailable
from streams.messages import Message


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token and what the model thought of it, before temperature; under a constraint, among what it allows.

    Attributes:
        token: its id.
        logprob: its log-probability, natural.
        top: the most likely tokens there and their log-probabilities, most likely first.
        thinking: whether it belongs to the reasoning.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    thinking: bool


class Reply:
    """Iterate :meth:`deltas` to the end; then the rest is known.

    Attributes:
        prompt_tokens: length of the prompt.
        cached_tokens: how many of them were in the KV cache; known from the first delta on.
        prefix_cached_tokens: the part of these that no session held.
        completion_tokens: generated so far.
        logprobs: one per generated token, where asked for.
        named_logprobs: of the tokens that the request named, at the first position.
        finish_reason: why it ended.
        stop: the stop sequence that ended it.
        full: it ended because there is no more room, not because of ``max_tokens``.
        message: what was said.
        version: the session's data version after this turn; None without a session.
    """

    def __init__(
        self,
        pieces: AsyncGenerator[Piece, None],
        reader: ReplyReader,
        *,
        prompt_tokens: int,
        held_tokens: int,
        top_logprobs: int,
        reasons: bool,
        capped: bool,
        grow: Callable[[int], bool],
        settle: Callable[[Reply], Awaitable[int | None]],
    ) -> None:
        """See the class.

        Args:
            pieces: the generation.
            reader: takes it apart.
            held_tokens: tokens of the prompt that the session holds.
            top_logprobs: alternatives to report for each token.
            reasons: whether the model's replies have reasoning.
            capped: whether the room is less than the client allows.
            grow: asked before the reply may have that many tokens; False ends it.
            settle: awaited with the finished reply; returns the session's version.
        """
        self._pieces = pieces
        self._reader = reader
        self._held_tokens = held_tokens
        self._top = top_logprobs
        self.reasons = reasons
        self._capped = capped
        self._grow = grow
        self._settle = settle
        self._text: list[str] = []
        self.tokens: list[int] = []
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0
        self.prefix_cached_tokens = 0
        self.logprobs: list[TokenLogprob] = []
        self.named_logprobs: Mapping[int, float] = {}
        self.finish_reason: Literal["stop", "length", "tool_calls"] = "stop"
        self.stop: str | None = None
        self.full = False
        self.message = Message("assistant")
        self.version: int | None = None

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens)

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of reasoning, markers included."""
        return self._reader.reasoning_tokens

    @property
    def malformed(self) -> bool:
        """Something that began as a call could not be read as one."""
        return self._reader.malformed

    async def deltas(self) -> AsyncGenerator[Delta, None]:
        """The reply as it comes. A session's turn is settled when this has ended, and only then.

        Raises:
            EngineUnavailable: the engine stopped before the reply was complete.
            Unavailable: the turn was not stored.
        """
        reasoning: list[str] = []
        content: list[str] = []
        finish: FinishReason | None = None
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                delta, finish = self._take(piece)
                reasoning.append(delta.reasoning)
                content.append(delta.content)
                yield delta
                if finish is not None:
                    break
        if finish is None:
            raise EngineUnavailable("the engine stopped before the reply was complete; try again", retry_after=5)
        calls = self._reader.calls()
        self.finish_reason = "tool_calls" if calls and finish == "stop" else finish
        thought = "".join(reasoning)
        self.message = Message(
            "assistant",
            "".join(content),
            reasoning=(thought or None) if self.reasons else None,
            calls=calls,
            raw="".join(self._text),
        )
        self.version = await self._settle(self)

    async def aclose(self) -> None:
        """End the generation, if it runs. Idempotent."""
        await self._pieces.aclose()

    def _take(self, piece: Piece) -> tuple[Delta, FinishReason | None]:
        if not self.tokens:
            self.cached_tokens = piece.cached_tokens
            self.prefix_cached_tokens = max(0, piece.cached_tokens - self._held_tokens)
            self.named_logprobs = piece.logprobs[0] if piece.logprobs else {}
        thinking = self._reader.thinking
        for token, logprobs in zip(piece.token_ids, piece.logprobs, strict=False):
            ranked = sorted(logprobs.items(), key=lambda item: item[1], reverse=True)
            self.logprobs.append(TokenLogprob(token, logprobs[token], tuple(ranked[: self._top]), thinking))
        self.tokens.extend(piece.token_ids)
        self._text.append(piece.text)
        delta = self._reader.read(piece)
        finish, self.stop = piece.finish_reason, piece.stop
        if finish == "length":
            self.full = self._capped
        elif finish is None and self._reader.call_ended:
            finish = "stop"
        elif finish is None and not self._grow(len(self.tokens)):
            finish, self.full = "length", True
        if finish is not None and piece.finish_reason is None:
            rest = self._reader.read(Piece("", (), (), piece.cached_tokens, finish))
            delta = Delta(delta.reasoning + rest.reasoning, delta.content + rest.content)
        return delta, finish
