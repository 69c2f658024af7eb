"""Wire models of Flash Queries."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from flashquery.answers import Answer
from flashquery.conditions import LONGEST, Condition
from flashquery.queries import Changes, FlashQuery, Look
from service.api.fields import INT64, FastAnswer, GapThreshold, NonEmpty, fits
from service.api.flash.notify import Notify, NotifyObject, Url
from service.bodies import Strict


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
            description="Ours: put the session's statistics before the question, as one line: of the entries that "
            "may leave through the window (true says the same), or of the whole stream."
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


class _Asks(Protocol):
    @property
    def query(self) -> str: ...


Q = TypeVar("Q", bound=_Asks)


def different(queries: tuple[Q, ...]) -> tuple[Q, ...]:
    """The same, if no two ask the same. Raises ValueError."""
    if len({query.query for query in queries}) != len(queries):
        raise ValueError("holds the same query twice")
    return queries


class FlashUpdate(FlashOptions):
    """What to change of a Flash Query; null takes an option away."""

    @model_validator(mode="after")
    def _changes_something(self) -> FlashUpdate:
        if not self.model_fields_set:
            raise ValueError(f"name at least one of {', '.join(FlashOptions.model_fields)}")
        return self


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

    @classmethod
    def of(cls, look: Look) -> FlashList:
        """The session as it looks."""
        data = [FlashObject.of(query, look.answers.get(query.id), look.version) for query in look.queries]
        return cls(data=data, data_version=look.version)


class HistoryQuery(Strict):
    """Query string of a Flash Query's history."""

    limit: Annotated[int, Field(ge=1, le=1000, description="Most answers to return.")] = 100
    since: Annotated[int | None, Field(ge=0, lt=INT64, description="Only answers over later data versions.")] = None


class PastAnswer(BaseModel):
    """An answer that a Flash Query has given."""

    value: str
    data_version: int
    confidence: float
    evaluated_at: Annotated[float, Field(description="Unix seconds, with fractions.")]
    probabilities: dict[str, float] | None = None
    mass: float | None = None
    changed: Annotated[bool, Field(description="The value is another than that of the answer before.")]

    @classmethod
    def of(cls, answer: Answer) -> PastAnswer:
        return cls(
            value=answer.value,
            data_version=answer.version,
            confidence=answer.confidence,
            evaluated_at=answer.evaluated_at,
            probabilities=answer.probabilities,
            mass=answer.mass,
            changed=answer.changed,
        )


class FlashHistory(BaseModel):
    """Answers of a Flash Query, oldest first."""

    object: Literal["list"] = "list"
    data: list[PastAnswer]
    has_more: Annotated[bool, Field(description="There are later ones: ask again with `since`.")]


class FlashDeleted(BaseModel):
    """A deleted Flash Query."""

    id: int
    object: Literal["flash_query.deleted"] = "flash_query.deleted"
    deleted: Literal[True] = True
    remaining: int
