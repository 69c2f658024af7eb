"""Wire models of the session API (LayerScale-compatible; what is ours beside it says so)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import TypedDict

from flashquery.ready import Ready
from service.api.fields import FLASH_MAX, INT64, NAME, SESSION_ID, FastAnswer, GapThreshold, Generated, NonEmpty
from service.api.flash.notify import Notify
from service.api.flash.protocol import FlashCreate, different
from service.bodies import Strict
from streams.entries import BUILTIN
from streams.session import Residency, Session

if TYPE_CHECKING:
    TypeName = str
else:
    TypeName = Literal[tuple(BUILTIN)]


class TypeCreate(Strict):
    """A type of entries of one's own."""

    name: Annotated[str, Field(pattern=NAME)] = "custom"
    schema_: Annotated[dict[str, Any], Field(alias="schema", description="JSON schema of an entry, an object.")]
    template: Annotated[
        NonEmpty,
        Field(max_length=1024, description="The line an entry is read as: text with `{field}` or `{field:.2f}` in it."),
    ]


class SessionCreate(Strict):
    """A session to create; everything is optional."""

    id: Annotated[
        str | None, Field(pattern=SESSION_ID, description="1 to 128 of A-Z a-z 0-9 _ -; made by the server if absent.")
    ] = None
    pre_decode: Annotated[
        bool, Field(description="Keep a ready position: what the model would say next to the data, without a question.")
    ] = False
    window: Annotated[
        int | None,
        Field(
            ge=1,
            lt=INT64,
            description="Sliding window in tokens: the stream, its system prompt included, is kept within it; the "
            "oldest leaves. The stream only grows if absent.",
        ),
    ] = None
    window_seconds: Annotated[
        float | None,
        Field(gt=0, le=31_536_000, description="Ours: sliding window in seconds; what is older leaves."),
    ] = None
    type: Annotated[
        TypeName | TypeCreate | None,
        Field(description="Ours: type of the entries that are pushed as objects; a built-in one, or one of your own."),
    ] = None
    system: Annotated[
        str | None,
        Field(min_length=1, max_length=65_536, description="Ours: system prompt that stands before the data."),
    ] = None
    flash: Annotated[
        tuple[FlashCreate, ...],
        Field(max_length=FLASH_MAX, description="Ours: queries to register with the session."),
        AfterValidator(different),
    ] = ()

    @field_validator("flash")
    @classmethod
    def _with_secrets(cls, flash: tuple[FlashCreate, ...]) -> tuple[FlashCreate, ...]:
        for query in flash:
            if query.notify is not None and Notify.of(query.notify).secret is None:
                raise ValueError("a webhook needs a `secret` here; one made by the server could not be told")
        return flash


Entry = NonEmpty | dict[str, Any]


def _items(data: Entry | list[Entry] | None) -> list[Entry]:
    return data if isinstance(data, list) else [] if data is None else [data]


class PushBody(Strict):
    """Data to push."""

    data: Annotated[
        Entry | list[Entry],
        Field(
            min_length=1,
            max_length=16 * 2**20,
            description="One entry, or several in order: raw text, or (ours) objects of the session's `type`.",
        ),
    ]

    @property
    def items(self) -> list[Entry]:
        return _items(self.data)


class GenerateBody(Generated):
    """An ephemeral question over the stream."""

    prompt: Annotated[NonEmpty, Field(description="The question.")]
    fast_answer: Annotated[
        FastAnswer | None,
        Field(
            description="Candidates: one that the ready position is sure of is answered without the model, whatever "
            "the prompt. At most 64, of at most 128 bytes each. If absent, those of the Flash Query of this text."
        ),
    ] = None
    gap_threshold: Annotated[
        GapThreshold | None,
        Field(description="How sure; least logit gap, in nats. If absent, that Flash Query's, or 2.0."),
    ] = None


class StatsQuery(Strict):
    """Query string of the statistics."""

    over: Annotated[
        Literal["window", "stream"],
        Field(
            description="Entries that may leave through the window, without what was frozen; or all ever read. The "
            "same where there is no window."
        ),
    ] = "window"


class StatsObject(BaseModel):
    """Statistics, computed outside of the model, of the entries that it has read; the fields are those of the type."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="`text` for raw text.")]
    count: Annotated[int, Field(description="Entries.")]


class SessionObject(BaseModel):
    """A session."""

    id: str
    object: Literal["session"] = "session"
    created: Annotated[int, Field(description="Unix seconds.")]
    last_used: Annotated[int, Field(description="Unix seconds, before this request.")]
    tokens: Annotated[int, Field(description="Length of the stream in tokens.")]
    kv_tokens: Annotated[int, Field(description="Tokens whose KV is resident.")]
    residency: Annotated[
        Residency,
        Field(
            description="Ours: `resident`; `warm` if it had to make room for others; `cold` if it has yet to be read "
            "again after a restart. Questions are slower then, and it comes back when it is used."
        ),
    ]
    busy: Annotated[bool, Field(description="A question is being answered.")]
    turns: Annotated[int, Field(description="Completed durable turns.")]
    data_end: Annotated[int, Field(description="End of the durable part, in tokens.")]
    data_version: Annotated[int, Field(description="Rises by one with every batch that is resident.")]
    pending: Annotated[int, Field(description="Entries accepted and not yet resident.")]
    pre_decode: Annotated[bool, Field(description="Keeps a ready position.")]
    ready: Annotated[bool, Field(description="The ready position is of the session's present version.")]
    ready_token: Annotated[int | None, Field(description="While ready: the most likely token there.")] = None
    ready_gap: Annotated[float | None, Field(description="While ready: its logit gap, in nats.")] = None
    evicted: Annotated[int, Field(description="Entries that left through a window.")]
    type: Annotated[str | None, Field(description="Ours: type of the entries.")] = None
    window: Annotated[int | None, Field(description="Sliding window in tokens.")] = None
    window_slack: Annotated[
        int | None,
        Field(description="Ours: tokens by which data may exceed the window while it moves; a turn is let in whole."),
    ] = None
    window_seconds: Annotated[float | None, Field(description="Ours: sliding window in seconds.")] = None
    frozen_end: Annotated[int | None, Field(description="End of what no window takes away, in tokens.")] = None

    @classmethod
    def of(cls, session: Session, ready: Ready | None) -> SessionObject:
        """The session as it is now, and its decision point if that is of the present version."""
        return cls(
            id=session.id,
            created=int(session.created),
            last_used=int(session.last_used),
            tokens=session.tokens,
            kv_tokens=session.kv_tokens,
            residency=session.residency,
            busy=session.running > 0,
            turns=session.turns,
            data_end=session.data_end,
            data_version=session.version,
            pending=session.pending,
            pre_decode=session.pre_decode,
            ready=ready is not None,
            ready_token=None if ready is None else ready.token,
            ready_gap=None if ready is None else ready.gap,
            evicted=session.evicted,
            type=None if session.type is None else session.type.name,
            window=session.window.tokens,
            window_slack=session.window.slack or None,
            window_seconds=session.window.seconds,
            frozen_end=session.frozen_end if session.windowed or session.timeline.frozen else None,
        )


class OldSession(TypedDict):
    """An old-style session in a list."""

    session_id: str
    n_tokens: Annotated[int, Field(description="Length of the stream in tokens.")]
    context: Annotated[int, Field(description="The model's, in tokens.")]
    prefix_end: Annotated[int, Field(description="End of what no window takes away, in tokens.")]
    cache_usage: Annotated[float, Field(description="The stream's share of the context, 0 to 1.")]
    created_at: Annotated[int, Field(description="Unix seconds.")]
    last_used_at: Annotated[int, Field(description="Unix seconds.")]
    in_use: Annotated[bool, Field(description="A question is being answered.")]


class SessionList(BaseModel):
    """All sessions, oldest first; and for old clients those of theirs once more."""

    object: Literal["list"] = "list"
    data: list[SessionObject]
    sessions: Annotated[list[OldSession], Field(description="Those that `/v1/sessions/init` made.")]
    count: Annotated[int, Field(description="How many these are.")]
    max_sessions: Annotated[int, Field(description="How many sessions of any kind may live.")]


class SessionDeleted(BaseModel):
    """A deleted session."""

    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True


class PushAckObject(BaseModel):
    """What a push is answered with, at once."""

    pushed: Annotated[int, Field(description="Entries accepted by this push.")]
    tokens: Annotated[int, Field(description="Ours: their length in tokens.")]
    dropped: Annotated[int, Field(description="Oldest queued entries this push displaced.")]
    pending: Annotated[int, Field(description="Entries accepted and not yet resident.")]
    pending_bytes: Annotated[int, Field(description="Their text's size in bytes.")]
    total_pushed: Annotated[
        int, Field(description="Entries ever accepted; give it back as `after` to read your writes.")
    ]
    total_dropped: Annotated[int, Field(description="Entries ever displaced.")]
    data_version: Annotated[int, Field(description="Version before this data is read.")]


class PromptTokensDetails(BaseModel):
    """Where a prompt's KV came from."""

    cached_tokens: int


class CompletionTokensDetails(BaseModel):
    """What a completion's tokens were spent on."""

    reasoning_tokens: Annotated[int, Field(description="Markers included.")]


class Usage(BaseModel):
    """Tokens of a request. A cache hit used none, and says nothing more."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: Annotated[
        CompletionTokensDetails | None, Field(description="Only of models that reason.")
    ] = None


class Generation(BaseModel):
    """An answer. The stream's last frame is the same without `text`, and with `done`."""

    id: str
    object: Literal["session.generation"] = "session.generation"
    session_id: str
    text: str | None = None
    done: Literal[True] | None = None
    finish_reason: Literal["stop", "length"]
    data_version: Annotated[int, Field(description="Version the answer was computed over.")]
    usage: Usage
    flash: Annotated[Literal[True] | None, Field(description="Served from a Flash Query's answer.")] = None
    flash_id: int | None = None
    confidence: float | None = None
    speculative: Annotated[Literal[True] | None, Field(description="Served from the ready position.")] = None
    logit_gap: float | None = None


class WarmObject(BaseModel):
    """How a warm turn ended."""

    id: str
    object: Literal["session.warm"] = "session.warm"
    session_id: str
    finish_reason: Annotated[
        Literal["warmed", "cancelled", "covered"],
        Field(description="All of it is resident; a turn or another warm turn came; all of it was resident before."),
    ]
    prompt_tokens: int
    cached_tokens: Annotated[int, Field(description="Resident before: held by the session, or in the prefix cache.")]
    prefix_cached_tokens: Annotated[int, Field(description="The prefix cache's part.")]
    data_version: int


class SocketMessage(Strict):
    """A message from a websocket client."""

    type: Literal["push", "ping", "close"]
    data: Annotated[Entry | list[Entry] | None, Field(min_length=1, max_length=16 * 2**20)] = None

    @model_validator(mode="after")
    def _push_has_data(self) -> SocketMessage:
        if self.type == "push" and self.data is None:
            raise ValueError("a push needs `data`: an entry, or a list of entries")
        return self

    @property
    def items(self) -> list[Entry]:
        return _items(self.data)
