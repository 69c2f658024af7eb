"""Wire models of the old generation (LayerScale clients 0.2 to 0.4)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from service.api.chat.protocol import AnyMessage, FunctionTool
from service.api.conversation import MESSAGES_MAX, TOOLS_MAX
from service.api.fields import FLASH_MAX, INT64, NonEmpty, Stop, StopList
from service.api.flash.protocol import different
from service.api.sessions.protocol import TypeName
from service.bodies import Strict


class StandingQuery(Strict):
    """A Flash Query to register."""

    query: NonEmpty
    max_tokens: Annotated[
        int | None, Field(ge=-INT64, lt=INT64, description="Clamped into 1 to 256; 32 if absent.")
    ] = None


class InitBody(Strict):
    """An old-style session to create."""

    type: Annotated[TypeName, Field(description="Of its entries.")]
    prompt: Annotated[str | None, Field(min_length=1, max_length=65_536, description="System prompt.")] = None
    context: Annotated[
        int | None, Field(ge=1, lt=INT64, description="At most the model's, which is what the session gets.")
    ] = None
    window_size: Annotated[int | None, Field(ge=1, lt=INT64, description="In tokens, the prompt included.")] = None
    flash: Annotated[tuple[StandingQuery, ...], Field(max_length=FLASH_MAX), AfterValidator(different)] = ()


class InitObject(BaseModel):
    """A created session."""

    session_id: str
    type: str
    n_tokens: Annotated[int, Field(description="Length of the stream in tokens.")]
    context: Annotated[int, Field(description="The model's, in tokens.")]
    window_size: Annotated[int, Field(description="In tokens; 0 for none.")]
    flash_queries: Annotated[int, Field(description="How many are registered.")]
    pos_max: Annotated[int, Field(description="Position of the last token, from 0; -1 if there is none.")]


class DataRegion(BaseModel):
    """Where the data is, in tokens."""

    start: int
    end: int
    window_size: int | None = None


class StateObject(BaseModel):
    """A session as it is now."""

    session_id: str
    type: str
    n_tokens: int
    context: int
    pos_min: Literal[0] = 0
    pos_max: int
    pos_next: int
    prefix_end: Annotated[int, Field(description="End of what no window takes away.")]
    data_region: DataRegion
    data_count: Annotated[int, Field(description="Entries in the stream.")]
    pending_prefill: Annotated[int, Field(description="Tokens accepted and not yet resident.")]
    cache_usage: Annotated[float, Field(description="The stream's share of the context, 0 to 1.")]
    created_at: Annotated[int, Field(description="Unix seconds.")]
    last_used_at: Annotated[int, Field(description="Unix seconds, before this request.")]
    in_use: Annotated[bool, Field(description="A question is being answered.")]
    context_text: Annotated[str, Field(description="The whole stream, markup included.")] = ""


class Slot(BaseModel):
    """A part of the stream."""

    name: Literal["prefix", "data", "turn"]
    start: int
    end: int
    n_tokens: int


class SlotsObject(BaseModel):
    """The parts of a stream, in order."""

    slots: list[Slot]
    prefix_end: int
    data_region: DataRegion
    pos_next: int
    total_tokens: int


class AppendBody(Strict):
    """Text to add to the stream."""

    text: Annotated[NonEmpty, Field(description="Becomes one line, and is an entry like any other.")]


class AppendObject(BaseModel):
    """What appending came to."""

    n_tokens_added: int
    total_tokens: int
    pos_max: int


class MarkPrefixBody(Strict):
    """Nothing to say."""


class MarkPrefixObject(BaseModel):
    """What no window takes away from now on."""

    prefix_end: int
    message: str


class StreamPushObject(BaseModel):
    """What a push is answered with, at once."""

    pushed: int
    dropped: Annotated[int, Field(description="Oldest queued entries this push displaced.")]
    queue_size: Annotated[int, Field(description="Entries accepted and not yet resident.")]
    queue_capacity: int
    total_enqueued: int
    total_dropped: int


class Streaming(BaseModel):
    """How reading goes."""

    initialized: Literal[True] = True
    running: Annotated[bool, Field(description="Data is read as it comes.")]
    error: Annotated[bool, Field(description="Reading has ended for good.")]
    queue_size: Annotated[int, Field(description="Entries accepted and not yet resident.")]
    queue_capacity: int
    window_size: int
    process_interval_us: Annotated[
        Literal[0], Field(description="There is none: what is queued is read as soon as the engine is free.")
    ] = 0


class StreamingStatistics(BaseModel):
    """What was read so far."""

    total_enqueued: int
    total_dropped: int
    batches_processed: int
    items_processed: Annotated[
        int, Field(description="Entries that wait no more: resident, or dropped before one that is.")
    ]
    total_process_time_us: Annotated[int, Field(description="Time spent reading.")]
    avg_process_time_us: Annotated[float, Field(description="The same per batch.")]


class StreamedData(BaseModel):
    """What is in the stream."""

    initialized: Annotated[bool, Field(description="Something was read.")]
    data_count: int
    total_data_tokens: int
    pos_next: int


class StatusObject(BaseModel):
    """How reading a stream goes."""

    type: str
    streaming: Streaming
    statistics: StreamingStatistics
    data: StreamedData


class GenerateOldBody(Strict):
    """A question that leaves nothing behind (``prompt``), or a durable turn (``messages``)."""

    messages: Annotated[list[AnyMessage] | None, Field(min_length=1, max_length=MESSAGES_MAX)] = None
    prompt: Annotated[NonEmpty | None, Field(validate_default=True)] = None
    tools: Annotated[list[FunctionTool] | None, Field(max_length=TOOLS_MAX, description="Beside `messages`.")] = None
    max_tokens: Annotated[int | None, Field(ge=1, lt=INT64)] = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    fast_answer: Annotated[bool, Field(description="Beside `prompt`.")] = False
    clear_after: Annotated[
        int | None, Field(ge=0, lt=INT64, description="Ignored: a question leaves nothing to clear, a turn stays.")
    ] = None
    stop: StopList | None = None
    stream: bool = False

    @field_validator("prompt")
    @classmethod
    def _one_of_two(cls, prompt: str | None, info: ValidationInfo) -> str | None:
        if "messages" in info.data and (prompt is None) == (info.data["messages"] is None):
            raise ValueError("send either `prompt` or `messages`")
        return prompt

    @field_validator("tools")
    @classmethod
    def _of_a_turn(cls, tools: list[FunctionTool] | None, info: ValidationInfo) -> list[FunctionTool] | None:
        if tools and info.data.get("prompt") is not None:
            raise ValueError("does not go with `prompt`; send `messages`")
        return tools

    @field_validator("fast_answer")
    @classmethod
    def _of_a_question(cls, fast_answer: bool, info: ValidationInfo) -> bool:
        if fast_answer and info.data.get("messages") is not None:
            raise ValueError("does not go with `messages`; send `prompt`")
        return fast_answer


class CompletionBody(Strict):
    """A prompt to complete."""

    prompt: NonEmpty
    model: Annotated[str | None, Field(description="Ignored: there is one model.")] = None
    max_tokens: Annotated[int, Field(ge=1, lt=INT64)] = 256
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    stop: Annotated[Stop | None, Field(description="Ignored, as it always was here.")] = None
    stream: Annotated[Literal[False], Field(description="There are no streams here.")] = False


class CompletionChoice(BaseModel):
    """The completion."""

    text: str
    index: Literal[0] = 0
    finish_reason: Literal["stop", "length"]


class CompletionUsage(BaseModel):
    """Tokens of a completion."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionObject(BaseModel):
    """A completion."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: Annotated[int, Field(description="Unix seconds.")]
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage


class ListQuery(Strict):
    """Query string of the list of Flash Queries: nothing to say."""


class StandingQueryObject(BaseModel):
    """A registered Flash Query."""

    id: int
    query: str
    max_tokens: int
    n_tokens: Annotated[int, Field(description="Length of the query in tokens.")]
    total_flash_queries: int
