"""Wire models of OpenAI's chat completions, as far as this server has them (what is ours beside them says so)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from service.api.conversation import (
    CALLS_MAX,
    MESSAGES_MAX,
    NO_VISION,
    PARTS_MAX,
    TOOLS_MAX,
    CalledName,
    Name,
    ObjectSchema,
    OldSessionId,
    SessionId,
    arguments_text,
    checked_shape,
    checked_tools,
    joined,
    tag_of,
    with_thinking,
)
from service.api.fields import Generated
from service.bodies import Strict
from streams.engine.base import Dialect, Sampling
from streams.errors import InvalidInput
from streams.messages import Conversation, Message, Shape, Tool, ToolCall


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Strict):
    """An image; refused, since no model here has vision."""

    type: Literal["image_url"]
    image_url: Any

    @model_validator(mode="after")
    def _refuse(self) -> ImagePart:
        raise ValueError(NO_VISION)


_NO_PART = "must be a part of type `text`"
_Part = Annotated[
    Annotated[TextPart, Tag("type:text")] | Annotated[ImagePart, Tag("type:image_url")],
    Discriminator(lambda value: tag_of(value, "type", "text"), custom_error_type="part", custom_error_message=_NO_PART),
]
Text = str | Annotated[list[TextPart], Field(max_length=PARTS_MAX)] | None
UserText = str | Annotated[list[_Part], Field(max_length=PARTS_MAX)] | None


def _text(content: str | list[TextPart] | list[TextPart | ImagePart] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return joined(part.text for part in content if isinstance(part, TextPart))


class SystemMessage(Strict):
    """What the model shall be."""

    role: Literal["system"]
    content: Text = None

    @property
    def message(self) -> Message:
        return Message("system", _text(self.content))


class UserMessage(Strict):
    """What the user says."""

    role: Literal["user"]
    content: UserText = None

    @property
    def message(self) -> Message:
        return Message("user", _text(self.content))


class CalledFunction(Strict):
    """A call that was made."""

    name: CalledName
    arguments: Annotated[Any, Field(description="JSON text, or the JSON itself; an empty object if absent.")] = None


class CallParam(Strict):
    """A call of the assistant."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction

    @property
    def call(self) -> ToolCall:
        return ToolCall(self.id or "", self.function.name, arguments_text(self.function.arguments))


class AssistantMessage(Strict):
    """What the model said; sent back as it was received."""

    role: Literal["assistant"]
    content: Text = None
    tool_calls: Annotated[list[CallParam] | None, Field(max_length=CALLS_MAX)] = None
    reasoning: str | None = None
    reasoning_content: Annotated[str | None, Field(description="Older name of `reasoning`, which wins.")] = None
    # OpenAI's client writes out what a reply did not have.
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None

    @property
    def message(self) -> Message:
        return Message(
            "assistant",
            _text(self.content),
            reasoning=self.reasoning or self.reasoning_content or None,
            calls=tuple(call.call for call in self.tool_calls or ()),
        )


class ToolMessage(Strict):
    """What a call came to."""

    role: Literal["tool", "ipython"]
    content: Text = None
    tool_call_id: str = ""

    @property
    def message(self) -> Message:
        return Message("tool", _text(self.content), call_id=self.tool_call_id)


_ROLES = "role must be one of `system`, `user`, `assistant` and `tool`"
AnyMessage = Annotated[
    Annotated[SystemMessage, Tag("role:system")]
    | Annotated[UserMessage, Tag("role:user")]
    | Annotated[AssistantMessage, Tag("role:assistant")]
    | Annotated[ToolMessage, Tag("role:tool")]
    | Annotated[ToolMessage, Tag("role:ipython")],
    Discriminator(lambda value: tag_of(value, "role"), custom_error_type="role", custom_error_message=_ROLES),
]


class Function(Strict):
    """A function the model may call."""

    name: Name
    description: str | None = None
    parameters: Annotated[ObjectSchema | None, Field(description="JSON schema of an object.")] = None


class FunctionTool(Strict):
    """A tool the model may call."""

    type: Literal["function"] = "function"
    function: Function

    @property
    def tool(self) -> Tool:
        return Tool(self.function.name, self.function.description, self.function.parameters)


class NamedFunction(Strict):
    """A function by its name."""

    name: str


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Strict):
    """Options of streams."""

    include_usage: Annotated[bool, Field(description="Send the usage in a chunk of its own, at the end.")] = False


class JsonSchema(Strict):
    """A schema that the reply's content obeys."""

    name: Name
    description: str | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema", description="JSON schema.")]
    strict: Annotated[bool | None, Field(description="The schema is always enforced.")] = None


class TextFormat(Strict):
    """Any text."""

    type: Literal["text"]


class JsonObjectFormat(Strict):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Strict):
    """JSON of a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


_FORMATS = "type must be one of `text`, `json_object` and `json_schema`"
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("type:text")]
    | Annotated[JsonObjectFormat, Tag("type:json_object")]
    | Annotated[JsonSchemaFormat, Tag("type:json_schema")],
    Discriminator(lambda value: tag_of(value, "type"), custom_error_type="format", custom_error_message=_FORMATS),
]


class ChatBody(Generated):
    """A conversation to continue, alone or as a turn of a session."""

    messages: Annotated[list[AnyMessage], Field(min_length=1, max_length=MESSAGES_MAX)]
    model: Annotated[str | None, Field(description="Ignored: there is one model.")] = None
    n: Annotated[Literal[1] | None, Field(description="There is one choice.")] = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[FunctionTool] | None, Field(max_length=TOOLS_MAX)] = None
    tool_choice: Annotated[
        Literal["auto", "none", "required"] | NamedTool | None,
        Field(description="A forced call is made without thinking, unless the request asks for it."),
    ] = None
    parallel_tool_calls: Annotated[bool | None, Field(description="False: at most one call.")] = None
    response_format: Annotated[ResponseFormat | None, Field(description="Ours: enforced token by token.")] = None
    logprobs: Annotated[bool | None, Field(description="Before temperature, top_p and constraints.")] = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20, description="Needs `logprobs`.")] = None
    include_reasoning: Annotated[bool, Field(description="False: leave the reasoning out of the reply.")] = True
    separate_reasoning: Annotated[
        bool, Field(description="False: leave the reasoning in the content, markers and all.")
    ] = True
    stream_reasoning: Annotated[bool, Field(description="False: send it as one delta, once it is complete.")] = True
    session_id: SessionId = None

    @property
    def shows_reasoning(self) -> bool:
        """Whether the reply has a field for its reasoning, where the model reasons."""
        return self.include_reasoning and self.separate_reasoning

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def sampling(self) -> Sampling:
        """How to generate.

        Raises:
            InvalidInput: ``top_logprobs`` without ``logprobs``.
        """
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidInput("top_logprobs: needs `logprobs: true` beside it", param="top_logprobs")
        # The engine reports the sampled token beside the most likely ones, so there must be one of these.
        top = max(self.top_logprobs or 0, 1) if self.logprobs else 0
        return self._sampling(self.max_tokens or self.max_completion_tokens, self.stop, top_logprobs=top)

    @property
    def shape(self) -> Shape:
        """What the reply may look like.

        Raises:
            InvalidInput: the tools do not allow it.
        """
        named = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else None
        choice = "named" if isinstance(self.tool_choice, NamedTool) else self.tool_choice or "auto"
        shape = Shape(
            choice=choice,
            tool=named,
            parallel=self.parallel_tool_calls is not False,
            schema=self._schema,
            # What is left out must first be told apart.
            separate_reasoning=self.separate_reasoning or not self.include_reasoning,
        )
        return checked_shape(shape, self._tools)

    def conversation(self, dialect: Dialect, *, forced: bool = False) -> Conversation:
        """What is to be continued.

        Args:
            dialect: the model's.
            forced: the reply must be a call.

        Raises:
            InvalidInput: two tools have the same name.
        """
        options = self.template_options
        asked = options.get("enable_thinking")
        return Conversation(
            tuple(message.message for message in self.messages),
            self._tools,
            with_thinking(options, None if asked is None else bool(asked), forced=forced, dialect=dialect),
        )

    @property
    def _tools(self) -> tuple[Tool, ...]:
        return checked_tools([tool.tool for tool in self.tools or ()])

    @property
    def _schema(self) -> dict[str, Any] | None:
        if isinstance(self.response_format, JsonSchemaFormat):
            return self.response_format.json_schema.schema_
        return {"type": "object"} if isinstance(self.response_format, JsonObjectFormat) else None


class ChatTurnBody(ChatBody):
    """The same where it may be a turn of an old-style session."""

    session_id: OldSessionId = None
