"""Wire models of the session API (LayerScale-compatible; what is ours beside it says so)."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from flashquery.answers import Answer
from flashquery.conditions import LONGEST, Condition
from flashquery.queries import Changes, FlashQuery
from flashquery.ready import Ready
from service.api.fields import INT64, NAME, SESSION_ID, Generated, NonEmpty, fits
from service.api.sessions.notify import Notify, NotifyObject, Url
from service.bodies import Strict
from streams.session import Session

FastAnswer = Annotated[tuple[Annotated[str, AfterValidator(lambda text: fits(text, 128))], ...], Field(max_length=64)]
GapThreshold = Annotated[float, Field(ge=0)]


def _condition(text: str) -> str:
    Condition.parse(text)
    return text


class FlashOptions(Strict):
    """What can be changed of a Flash Query."""

    max_tokens: Annotated[
        int | None,
        Field(
            ge=-INT64,
            lt=INT64,
            description="Longest answer in tokens; clamped into 1 to 256. 32 if absent, 256 beside a schema.",
        ),
    ] = None
    fast_answer: Annotated[
        FastAnswer | None,
        Field(
            description="Ours: while the answer is not fresh, `generate` with this query's text answers one of these "
            "from the ready position, if that is sure of it. At most 64, of at most 128 bytes each."
        ),
    ] = None
    gap_threshold: Annotated[
        GapThreshold | None, Field(description="Ours: how sure; least logit gap, in nats. 2.0 if absent.")
    ] = None
    with_stats: Annotated[
        Literal["window", "stream"] | bool | None,
        Field(
            description="Ours: put the session's statistics before the question, as one line: of the entries in the "
            "window (true says the same), or of the whole stream."
        ),
    ] = None
    every: Annotated[
        int | None, Field(ge=1, lt=INT64, description="Ours: evaluate when that many versions have come.")
    ] = None
    min_interval: Annotated[
        float | None, Field(gt=0, le=86_400, description="Ours: least time between evaluations, in seconds.")
    ] = None
    when: Annotated[
        Annotated[str, Field(max_length=LONGEST), AfterValidator(_condition)] | None,
        Field(
            description="Ours: evaluate only while this holds of the statistics, such as "
            "`change_pct > 1 and count >= 10`; of those that `with_stats` names, or else the window's."
        ),
    ] = None

    @property
    def options(self) -> Changes:
        """Those that were given, as a query has them."""
        options = Changes(
            max_tokens=self.max_tokens,
            fast_answer=self.fast_answer or (),
            gap_threshold=self.gap_threshold,
            with_stats="window" if self.with_stats is True else self.with_stats or None,
            every=self.every,
            min_interval=self.min_interval,
            when=None if self.when is None else Condition.parse(self.when),
        )
        return cast(Changes, {name: value for name, value in options.items() if name in self.model_fields_set})


class FlashCreate(FlashOptions):
    """A Flash Query to register."""

    query: Annotated[NonEmpty, Field(description="The standing question.")]
    choices: Annotated[
        list[str] | None,
        Field(
            min_length=2,
            max_length=32,
            description="Ours: the answer is one of these, and carries the probability of each and their total mass. "
            "One token per decision is computed, so this is also the fastest kind of query.",
        ),
    ] = None

    schema_: Annotated[
        dict[str, Any] | None,
        Field(
            alias="schema",
            description="Ours: the answer is JSON of this schema; one that does not fit `max_tokens` is no answer.",
        ),
    ] = None

    notify: Annotated[
        Url | Notify | None,
        Field(description="Ours: a webhook that is told when the answer changes; a URL, or an object."),
    ] = None

    @field_validator("schema_")
    @classmethod
    def _alone(cls, schema: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        if schema is not None and info.data.get("choices") is not None:
            raise ValueError("an answer is of a schema or one of `choices`, not both; leave one out")
        return schema

    @field_validator("choices")
    @classmethod
    def _distinct(cls, choices: list[str] | None) -> list[str] | None:
        for choice in choices or ():
            fits(choice, 128)
        if choices is not None and len(set(choices)) != len(choices):
            raise ValueError("must all be different")
        return choices


class FlashUpdate(FlashOptions):
    """What to change of a Flash Query; null takes an option away."""

    @model_validator(mode="after")
    def _changes_something(self) -> FlashUpdate:
        if not self.model_fields_set:
            raise ValueError(f"name at least one of {', '.join(FlashOptions.model_fields)}")
        return self


TypeName = Literal["ohlcv", "iot", "spatial", "event", "vitals"]


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
    flash: Annotated[tuple[FlashCreate, ...], Field(description="Ours: queries to register with the session.")] = ()

    @field_validator("flash")
    @classmethod
    def _different(cls, flash: tuple[FlashCreate, ...]) -> tuple[FlashCreate, ...]:
        if len({query.query for query in flash}) != len(flash):
            raise ValueError("holds the same query twice")
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
        Field(description="What the window shows, or everything ever read. The same where there is no window."),
    ] = "window"


class StatsObject(BaseModel):
    """Statistics, computed outside of the model, of the entries that it has read; the fields are those of the type."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="`text` for raw text.")]
    count: Annotated[int, Field(description="Entries.")]


class PollQuery(Strict):
    """Query string of the polling endpoints; all ours."""

    wait: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds to wait for news: with If-None-Match until the state differs from it, without until "
            "every answer is fresh.",
        ),
    ] = 0
    after: Annotated[
        int | None,
        Field(ge=0, lt=INT64, description="A push's total_pushed; first wait until that many entries are resident."),
    ] = None


class SessionObject(BaseModel):
    """A session."""

    id: str
    object: Literal["session"] = "session"
    created: Annotated[int, Field(description="Unix seconds.")]
    last_used: Annotated[int, Field(description="Unix seconds, before this request.")]
    tokens: Annotated[int, Field(description="Length of the stream in tokens.")]
    kv_tokens: Annotated[int, Field(description="Tokens whose KV is resident.")]
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


class SessionList(BaseModel):
    """All sessions, oldest first."""

    object: Literal["list"] = "list"
    data: list[SessionObject]


class SessionDeleted(BaseModel):
    """A deleted session."""

    id: str
    object: Literal["session.deleted"] = "session.deleted"
    deleted: Literal[True] = True


class PushAckObject(BaseModel):
    """What a push is answered with, at once."""

    pushed: Annotated[int, Field(description="Entries accepted by this push.")]
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


class FlashObject(BaseModel):
    """A Flash Query; the last fields are there once it was answered."""

    model_config = ConfigDict(serialize_by_alias=True)

    id: int
    object: Literal["flash_query"] = "flash_query"
    query: str
    max_tokens: int
    tokens: Annotated[int, Field(description="Length of the query in tokens.")]
    choices: Annotated[list[str] | None, Field(description="Ours.")] = None
    schema_: Annotated[dict[str, Any] | None, Field(serialization_alias="schema", description="Ours.")] = None
    notify: Annotated[NotifyObject | None, Field(description="Ours.")] = None
    fast_answer: Annotated[list[str] | None, Field(description="Ours.")] = None
    gap_threshold: Annotated[float | None, Field(description="Ours: in nats.")] = None
    with_stats: Annotated[Literal["window", "stream"] | None, Field(description="Ours.")] = None
    every: Annotated[int | None, Field(description="Ours: in versions.")] = None
    min_interval: Annotated[float | None, Field(description="Ours: in seconds.")] = None
    when: Annotated[str | None, Field(description="Ours.")] = None
    fresh: Annotated[bool, Field(description="The answer is of the session's present version.")]
    value: str | None = None
    data_version: int | None = None
    confidence: Annotated[
        float | None, Field(description="Logit gap, in nats, of the two most likely first tokens, or choices.")
    ] = None
    evaluated_at: Annotated[int | None, Field(description="Unix seconds.")] = None
    probabilities: Annotated[dict[str, float] | None, Field(description="Ours: of each choice, unconstrained.")] = None
    mass: Annotated[float | None, Field(description="Ours: the choices' share of the model's belief, 0 to 1.")] = None
    warning: Annotated[
        str | None, Field(description="Ours, at registration: what will keep this query from being answered well.")
    ] = None

    @classmethod
    def of(cls, query: FlashQuery, answer: Answer | None, version: int) -> FlashObject:
        """A query and its answer, as of the session's ``version``."""
        found = cls(
            id=query.id,
            query=query.text,
            max_tokens=query.max_tokens,
            tokens=len(query.tokens),
            choices=None if query.choices is None else list(query.choices),
            schema_=None if query.schema is None else dict(query.schema),
            notify=NotifyObject.of(query),
            fast_answer=list(query.fast_answer) or None,
            gap_threshold=query.gap_threshold,
            with_stats=query.with_stats,
            every=query.every,
            min_interval=query.min_interval,
            when=None if query.when is None else query.when.text,
            fresh=answer is not None and answer.version == version,
        )
        if answer is None:
            return found
        return found.model_copy(
            update={
                "value": answer.value,
                "data_version": answer.version,
                "confidence": answer.confidence,
                "evaluated_at": int(answer.evaluated_at),
                "probabilities": answer.probabilities,
                "mass": answer.mass,
            }
        )


class FlashList(BaseModel):
    """A session's Flash Queries in order of registration, and its present version."""

    object: Literal["list"] = "list"
    data: list[FlashObject]
    data_version: int


class FlashDeleted(BaseModel):
    """A deleted Flash Query."""

    id: int
    object: Literal["flash_query.deleted"] = "flash_query.deleted"
    deleted: Literal[True] = True
    remaining: int


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
