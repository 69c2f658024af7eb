"""What a stream needs of an inference engine: hold tokens, extend them, ask over them.

Everything above this module speaks to :class:`Engine` only. Token sequences are plain ``list[int]`` of vocabulary ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Literal, Protocol

from streams.engine.facts import Accelerator, ModelSize, TemplateSource
from streams.footprint import Footprint
from streams.messages import Conversation, Shape, ToolCall

FinishReason = Literal["stop", "length"]

_UNKNOWN_SIZE = ModelSize()


class Priority(IntEnum):
    """Who goes first when requests wait for the engine; lower runs earlier."""

    FOREGROUND = 0
    FLASH = 5
    INGEST = 10
    WARM = 20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a loaded model.

    Attributes:
        name: the name clients see.
        context: longest sequence, prompt plus completion, in tokens.
        block_size: tokens per KV block; only full blocks are shared between requests.
        kv_capacity: KV cache of each rank, in blocks of tokens; what a sequence takes of it says ``footprint``.
        ranks: data-parallel copies of the model. Each has a KV cache and a prefix cache of its own, and they are
            numbered from 0: what one rank holds, a request on another computes anew.
        bounds, states: see :class:`~streams.footprint.Footprint`.
        batch_tokens: tokens computed in one step at most; 0 for no bound.
        chat_template: where the chat template is from.
        size: how large the model is.
        accelerators: the GPUs of the server's machine that the engine may use.
    """

    name: str
    context: int
    block_size: int
    kv_capacity: int
    ranks: int = 1
    bounds: tuple[int | None, ...] = (None,)
    states: int = 0
    batch_tokens: int = 0
    chat_template: TemplateSource = "model"
    size: ModelSize = _UNKNOWN_SIZE
    accelerators: tuple[Accelerator, ...] = ()

    @property
    def footprint(self) -> Footprint:
        """What a sequence takes of the KV cache."""
        return Footprint(self.block_size, self.bounds, self.states)


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the text may be, enforced token by token.

    Attributes:
        kind: ``json`` for a JSON schema, ``structural_tag`` for one of xgrammar's structural tags.
        value: the schema or tag, as JSON values.
        after_reasoning: the reply begins with reasoning, which is free; the constraint holds from its end on.
        fit: bound what it leaves open so that the text can end within ``max_tokens``.
    """

    kind: Literal["json", "structural_tag"]
    value: Mapping[str, Any]
    after_reasoning: bool = False
    fit: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to generate. ``temperature`` 0 is greedy.

    Attributes:
        constraint: None for free text.
        keep_markup: leave control tokens in the text, for a :class:`ReplyReader` that needs to see them; the token
            that ends the answer is never in it.
        top_logprobs: how many of the most likely tokens to report at each position (0 for none).
        logprob_token_ids: report the log-probabilities of these tokens in place of ``top_logprobs``.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    logprob_token_ids: tuple[int, ...] = ()
    constraint: Constraint | None = None
    keep_markup: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A step of a generation.

    Attributes:
        text: newly decoded text; may be empty while a character is incomplete.
        token_ids: newly sampled tokens.
        logprobs: one ``{token id: log-probability}`` per new token, empty unless asked for. Under a constraint these
            are among the tokens it allows; those it rules out are left out.
        cached_tokens: prompt tokens whose KV was already there.
        finish_reason: set on the last piece only.
        stop: the stop sequence that ended the answer, on the last piece, if one did.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[Mapping[int, float], ...]
    cached_tokens: int
    finish_reason: FinishReason | None
    stop: str | None = None


class Tokenizer(Protocol):
    """Text to tokens, with and without control tokens."""

    @property
    def eos_id(self) -> int:
        """The token that ends an answer."""

    @property
    def end_ids(self) -> frozenset[int]:
        """Every token that ends an answer, :attr:`eos_id` among them."""

    def encode(self, text: str) -> list[int]:
        """Tokenize untrusted text: no control token can come out, whatever the text says."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenize each of several untrusted texts, as :meth:`encode` does, in less time."""

    def encode_markup(self, text: str) -> list[int]:
        """Tokenize a piece of the chat template, control tokens included."""

    def guard(self, text: str, mark: str) -> str:
        """Put ``mark`` inside of whatever would be a control token, so that the text can be rendered into a template.

        Cut at its marks and tokenized piece by piece with :meth:`encode_markup`, it yields no control token.
        """

    def token_bytes(self, token: int) -> bytes:
        """The bytes a token stands for; part of a character, perhaps. A control token's are its surface."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, object],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        generation: bool = True,
    ) -> str:
        """Render the model's chat template.

        Args:
            messages: in the form of OpenAI's chat API, except that the arguments of calls are JSON values.
            options: the template's own.
            tools: as in OpenAI's chat API; only where the :attr:`Dialect.takes_tools`.
            generation: end with the opening of the assistant's reply.

        Raises:
            InvalidInput: the template refuses these messages or options.
        """


@dataclass(frozen=True, slots=True)
class Delta:
    """What a piece of generated text adds to a reply, once it is clear what it is."""

    reasoning: str = ""
    content: str = ""


class ReplyReader(Protocol):
    """Takes one reply apart while it is generated.

    Attributes:
        constraint: what the reply must obey; to be handed to the engine, as ``keep_markup`` is.
        keep_markup: see :class:`Sampling`.
    """

    constraint: Constraint | None
    keep_markup: bool

    @property
    def thinking(self) -> bool:
        """Whether the next token belongs to the reasoning, its markers included."""

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of reasoning so far, markers included."""

    @property
    def call_ended(self) -> bool:
        """Whether the only call the reply may have is complete: generation can stop here."""

    @property
    def malformed(self) -> bool:
        """Whether something that began as a call could not be read as one; known once finished."""

    def read(self, piece: Piece) -> Delta:
        """Take in the next piece. The one with a finish reason is the last, and flushes what was held back."""

    def calls(self) -> tuple[ToolCall, ...]:
        """The calls, complete, in order; to be asked when the last piece was read."""


class Dialect(Protocol):
    """How a model writes calls and reasoning, known from its chat template."""

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template renders tools."""

    @property
    def reasons(self) -> bool:
        """Whether replies may begin with reasoning that can be told apart."""

    @property
    def switchable(self) -> bool:
        """Whether the template option ``enable_thinking`` turns reasoning on and off."""

    def reader(self, conversation: Conversation, shape: Shape, prompt: Sequence[int]) -> ReplyReader:
        """A reader for the reply to ``prompt``, the tokens that ``conversation`` renders to.

        Raises:
            InvalidInput: a schema cannot be enforced; the message says which part of it.
        """


class Held(Protocol):
    """A token sequence whose KV blocks stay allocated until released. One call at a time."""

    @property
    def tokens(self) -> int:
        """Tokens whose KV is resident."""

    @property
    def cached(self) -> int:
        """How many of the first call's tokens the prefix cache had already."""

    @property
    def lost(self) -> bool:
        """Whether its engine has died, and its KV with it. It can only be released then, which takes no time."""

    async def extend(self, tokens: Sequence[int]) -> None:
        """Append tokens; returns when their KV is resident.

        Raises:
            EngineUnavailable: the engine died; the hold is gone.
        """

    async def release(self) -> None:
        """Give the blocks back. They may serve as prefix cache until needed. Idempotent.

        Goes on to its end when it is cancelled: whoever cancels it waits.
        """


def text_of(tokens: Sequence[int], tokenizer: Tokenizer) -> str:
    """What tokens say, control tokens included."""
    return b"".join(map(tokenizer.token_bytes, tokens)).decode(errors="replace")


class Engine(Protocol):
    """A loaded model."""

    @property
    def facts(self) -> ModelFacts: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def dead(self) -> bool:
        """True while the engine cannot answer."""

    @property
    def dialect(self) -> Dialect: ...

    async def ready(self) -> None:
        """Wait until it can answer.

        Raises:
            EngineUnavailable: it never will again.
        """

    async def lost(self) -> None:
        """Wait until it dies; for a second at most after it did."""

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> Held:
        """A new, empty hold on a rank."""

    def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        """Generate from a prompt, on a rank. Closing the generator cancels the request.

        Raises:
            EngineUnavailable: the engine died.
        """

    async def close(self) -> None:
        """Free everything. Idempotent."""
