"""What a stream needs of an inference engine: hold tokens, extend them, ask over them.

Everything above this module speaks to :class:`Engine` only. Token sequences are plain ``list[int]`` of vocabulary ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]


class Priority(IntEnum):
    """Who goes first when requests wait for the engine; lower runs earlier."""

    FOREGROUND = 0
    FLASH = 5
    INGEST = 10


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a loaded model.

    Attributes:
        name: the name clients see.
        context: longest sequence, prompt plus completion, in tokens.
        block_size: tokens per KV block; only full blocks are shared between requests.
        kv_capacity: tokens of KV cache in total.
    """

    name: str
    context: int
    block_size: int
    kv_capacity: int


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. ``temperature`` 0 is greedy.

    Attributes:
        top_logprobs: how many of the most likely tokens to report at each position (0 for none).
        logprob_token_ids: report the log-probabilities of these tokens, before any mask, in place of ``top_logprobs``.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    logprob_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A step of a generation.

    Attributes:
        text: newly decoded text; may be empty while a character is incomplete.
        token_ids: newly sampled tokens.
        logprobs: one ``{token id: log-probability}`` per new token, empty unless asked for.
        cached_tokens: prompt tokens whose KV was already there.
        finish_reason: set on the last piece only.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Mapping[int, float], ...]
    cached_tokens: int
    finish_reason: FinishReason | None


class Tokenizer(Protocol):
    """Text to tokens, with and without control tokens."""

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""

    def encode(self, text: str) -> list[int]:
        """Tokenize untrusted text: no control token can come out, whatever the text says."""

    def encode_markup(self, text: str) -> list[int]:
        """Tokenize a piece of the chat template, control tokens included."""

    def render(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> str:
        """Render the model's chat template, ending with the opening of the assistant's reply.

        Raises:
            InvalidInput: the template refuses these messages or options.
        """


class Held(Protocol):
    """A token sequence whose KV blocks stay allocated until released. One call at a time."""

    @property
    def tokens(self) -> int:
        """Tokens whose KV is resident."""

    async def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens; returns when their KV is resident.

        Raises:
            EngineUnavailable: the engine died; the hold is gone.
        """

    async def release(self) -> None:
        """Give the blocks back. They may serve as prefix cache until needed. Idempotent."""


class Engine(Protocol):
    """A loaded model."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def dead(self) -> bool:
        """True once the engine cannot answer any more."""

    def hold(self) -> Held:
        """A new, empty hold."""

    def generate(self, tokens: Sequence[int], sampling: Sampling, priority: Priority) -> AsyncGenerator[Piece, None]:
        """Generate from a prompt. Closing the generator cancels the request.

        Raises:
            EngineUnavailable: the engine died.
        """

    async def close(self) -> None:
        """Free everything. Idempotent."""
