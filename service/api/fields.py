"""Request fields that several surfaces share, and their bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from service.bodies import Strict
from streams.engine.base import Sampling

INT64 = 2**63
FLASH_MAX = 1024
"""Queries to register with a session: no setting allows more."""
SESSION_HEADER = "x-layerscale-session-id"
"""Names the session that a chat request is a turn of."""

SESSION_ID = r"^[A-Za-z0-9_-]{1,128}$"
NAME = r"^[A-Za-z0-9_-]{1,64}$"
# More tokens than any context has: the prompt's room decides.
UNLIMITED = 2**31

_STOPS_MAX = 4
_STOP_BYTES_MAX = 64

NonEmpty = Annotated[str, StringConstraints(min_length=1)]


def fits(text: str, limit: int) -> str:
    """``text``, if it has 1 to ``limit`` bytes of UTF-8. Raises ValueError."""
    if not 1 <= len(text.encode()) <= limit:
        raise ValueError(f"must be 1 to {limit} bytes of UTF-8")
    return text


def _short(stop: str | list[str]) -> str | list[str]:
    for sequence in [stop] if isinstance(stop, str) else stop:
        fits(sequence, _STOP_BYTES_MAX)
    return stop


FastAnswer = Annotated[tuple[Annotated[str, AfterValidator(lambda text: fits(text, 128))], ...], Field(max_length=64)]
GapThreshold = Annotated[float, Field(ge=0)]
StopList = Annotated[list[str], Field(max_length=_STOPS_MAX), AfterValidator(_short)]
Stop = Annotated[str, AfterValidator(_short)] | StopList
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def thinks(effort: Effort) -> bool:
    """Whether an effort turns thinking on."""
    return effort not in ("none", "minimal", "low")


class ChatTemplateKwargs(Strict):
    """Options of the chat template."""

    date_string: str | None = None
    enable_thinking: bool | None = None
    add_generation_prompt: Literal[True] | None = None
    tools_in_user_message: Literal[True] | None = None


class Sampled(Strict):
    """How any request for generation says how to generate."""

    temperature: Annotated[float, Field(ge=0, le=2, description="0 is greedy.")] = 0.6
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.9
    seed: Annotated[int | None, Field(ge=-INT64, lt=INT64)] = None
    ignore_eos: bool = False
    stream: bool = False
    after: Annotated[
        int | None,
        Field(ge=0, lt=INT64, description="Ours: a push's total_pushed; answer when that many entries are resident."),
    ] = None

    def _sampling(self, max_tokens: int | None, stop: str | list[str] | None, *, top_logprobs: int = 0) -> Sampling:
        return Sampling(
            max_tokens=max_tokens or UNLIMITED,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            ignore_eos=self.ignore_eos,
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            top_logprobs=top_logprobs,
        )


class Generated(Sampled):
    """The fields that ``generate`` and OpenAI's chat completions share."""

    max_tokens: Annotated[
        int | None,
        Field(ge=1, lt=INT64, description="Longest answer; until it stops or the context is full if absent."),
    ] = None
    max_completion_tokens: Annotated[
        int | None, Field(ge=1, lt=INT64, description="Used when max_tokens is absent.")
    ] = None
    stop: Annotated[Stop | None, Field(description="Up to 4 sequences of at most 64 bytes; not part of the text.")] = (
        None
    )
    reasoning_effort: Annotated[
        Effort | None,
        Field(description="none, minimal and low turn thinking off, the others on; beats `enable_thinking`."),
    ] = None
    chat_template_kwargs: ChatTemplateKwargs | None = None

    @property
    def sampling(self) -> Sampling:
        """How to generate."""
        return self._sampling(self.max_tokens or self.max_completion_tokens, self.stop)

    @property
    def template_options(self) -> dict[str, object]:
        """What the template is given. ``reasoning_effort`` beats ``enable_thinking``."""
        given = self.chat_template_kwargs.model_dump(exclude_none=True) if self.chat_template_kwargs else {}
        given.pop("add_generation_prompt", None)
        if self.reasoning_effort is not None:
            given["enable_thinking"] = thinks(self.reasoning_effort)
        return given
