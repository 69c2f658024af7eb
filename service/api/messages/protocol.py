"""Wire models of Anthropic's messages, as far as this server has them (what is ours beside them says so)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from service.api.conversation import (
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
from service.api.fields import INT64, Sampled, StopList, thinks
from service.bodies import Strict
from streams.engine.base import Dialect, Sampling
from streams.errors import InvalidInput
from streams.messages import Conversation, Message, Shape, Tool, ToolCall

# Clients mark where a cache may be cut; here every prefix is cached.
CacheControl = Annotated[dict[str, Any] | None, Field(description="Ours: ignored, every prefix is cached.")]


class TextBlock(Strict):
    """Text."""

    type: Literal["text"] = "text"
    text: str
    cache_control: CacheControl = None


class ImageBlock(Strict):
    """An image; refused, since no model here has vision."""

    type: Literal["image"]
    source: Any
    cache_control: CacheControl = None

    @model_validator(mode="after")
    def _refuse(self) -> ImageBlock:
        raise ValueError(NO_VISION)


class ResultPart(Strict):
    """A part of what a call came to."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl = None

    @model_validator(mode="before")
    @classmethod
    def _is_text(cls, value: Any) -> Any:
        kind = value.get("type") if isinstance(value, dict) else None
        if kind != "text":
            named = kind[:40] if isinstance(kind, str) else "?"
            raise ValueError(f"tool_result content of type '{named}' is not supported (text)")
        return value


class ToolResultBlock(Strict):
    """What a call came to."""

    type: Literal["tool_result"]
    tool_use_id: str = ""
    content: str | Annotated[list[ResultPart], Field(max_length=PARTS_MAX)] | None = None
    is_error: Annotated[bool | None, Field(description="Ignored; say it in the content.")] = None
    cache_control: CacheControl = None

    @property
    def message(self) -> Message:
        content = self.content
        if not isinstance(content, str):
            content = joined(part.text for part in content or ())
        return Message("tool", content, call_id=self.tool_use_id)


class ToolUseBlock(Strict):
    """A call that was made."""

    type: Literal["tool_use"]
    id: str | None = None
    name: CalledName
    input: Annotated[Any, Field(description="Any JSON; an empty object if absent.")] = None
    cache_control: CacheControl = None

    @property
    def call(self) -> ToolCall:
        return ToolCall(self.id or "", self.name, arguments_text(self.input))


class ThinkingBlock(Strict):
    """What the model thought, sent back as it was received."""

    type: Literal["thinking"]
    thinking: str
    signature: Annotated[str | None, Field(description="Never checked.")] = None


class RedactedThinkingBlock(Strict):
    """Accepted and dropped: nothing in it can be read."""

    type: Literal["redacted_thinking"]
    data: str | None = None


_USER_BLOCKS = "type must be one of `text`, `image` and `tool_result`"
_UserBlock = Annotated[
    Annotated[TextBlock, Tag("type:text")]
    | Annotated[ImageBlock, Tag("type:image")]
    | Annotated[ToolResultBlock, Tag("type:tool_result")],
    Discriminator(
        lambda value: tag_of(value, "type", "text"), custom_error_type="block", custom_error_message=_USER_BLOCKS
    ),
]
_ASSISTANT_BLOCKS = "type must be one of `text`, `tool_use`, `thinking` and `redacted_thinking`"
_AssistantBlock = Annotated[
    Annotated[TextBlock, Tag("type:text")]
    | Annotated[ToolUseBlock, Tag("type:tool_use")]
    | Annotated[ThinkingBlock, Tag("type:thinking")]
    | Annotated[RedactedThinkingBlock, Tag("type:redacted_thinking")],
    Discriminator(
        lambda value: tag_of(value, "type", "text"), custom_error_type="block", custom_error_message=_ASSISTANT_BLOCKS
    ),
]


class UserTurn(Strict):
    """What the user says, and what calls came to."""

    role: Literal["user"]
    content: str | Annotated[list[_UserBlock], Field(max_length=PARTS_MAX)]

    @property
    def messages(self) -> list[Message]:
        """The same as messages of one kind each, in order."""
        if isinstance(self.content, str):
            return [Message("user", self.content)]
        found: list[Message] = []
        texts: list[str] = []
        for block in self.content:
            if isinstance(block, TextBlock):
                texts.append(block.text)
            elif isinstance(block, ToolResultBlock):
                if texts:
                    found.append(Message("user", joined(texts)))
                    texts = []
                found.append(block.message)
        if texts or not found:
            found.append(Message("user", joined(texts)))
        return found


class AssistantTurn(Strict):
    """What the model said; sent back as it was received."""

    role: Literal["assistant"]
    content: str | Annotated[list[_AssistantBlock], Field(max_length=PARTS_MAX)]

    @property
    def messages(self) -> list[Message]:
        """The same as one message."""
        if isinstance(self.content, str):
            return [Message("assistant", self.content)]
        blocks = self.content
        return [
            Message(
                "assistant",
                joined(block.text for block in blocks if isinstance(block, TextBlock)),
                # A client that was not shown the thinking says nothing of it.
                reasoning=joined(b.thinking for b in blocks if isinstance(b, ThinkingBlock) and b.thinking) or None,
                calls=tuple(block.call for block in blocks if isinstance(block, ToolUseBlock)),
            )
        ]


_ROLES = "role must be `user` or `assistant`; the system prompt goes into the field `system`"
AnyMessage = Annotated[
    Annotated[UserTurn, Tag("role:user")] | Annotated[AssistantTurn, Tag("role:assistant")],
    Discriminator(lambda value: tag_of(value, "role"), custom_error_type="role", custom_error_message=_ROLES),
]


class SystemBlock(Strict):
    """A part of the system prompt."""

    type: Annotated[str | None, Field(description="Not checked.")] = None
    text: str
    cache_control: CacheControl = None


class MessagesTool(Strict):
    """A tool the model may call."""

    name: Name
    description: str | None = None
    input_schema: Annotated[ObjectSchema | None, Field(description="JSON schema of an object.")] = None
    cache_control: CacheControl = None

    @property
    def tool(self) -> Tool:
        return Tool(self.name, self.description, self.input_schema)


class ToolChoice(Strict):
    """Whether tools are called: as the model likes, never, at least one of any, or the one named."""

    type: Literal["auto", "none", "any", "tool"]
    name: Annotated[str | None, Field(description="With `tool` only.")] = None
    disable_parallel_tool_use: Annotated[bool | None, Field(description="At most one call; not with `none`.")] = None

    @model_validator(mode="after")
    def _fitting(self) -> ToolChoice:
        if (self.name is not None) != (self.type == "tool"):
            raise ValueError("`name` goes with the type `tool`, and only with it")
        if self.type == "none" and self.disable_parallel_tool_use is not None:
            raise ValueError("`disable_parallel_tool_use` does not go with the type `none`")
        return self


class Thinking(Strict):
    """Whether the model thinks before it replies; ignored where it cannot."""

    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: Annotated[
        int | None, Field(ge=1024, lt=INT64, description="Required with `enabled`, and only there; not enforced.")
    ] = None
    display: Annotated[
        Literal["summarized", "omitted"], Field(description="omitted: send the block with empty text.")
    ] = "summarized"

    @model_validator(mode="after")
    def _fitting(self) -> Thinking:
        if (self.budget_tokens is not None) != (self.type == "enabled"):
            raise ValueError("`budget_tokens` goes with the type `enabled`, and only with it")
        return self


class OutputConfig(Strict):
    """How much effort the reply is worth."""

    effort: Annotated[
        Literal["low", "medium", "high", "xhigh", "max"] | None,
        Field(description="low turns thinking off, the others on, unless `thinking` is disabled."),
    ] = None


class Asked(Sampled):
    """A conversation to continue; what is left of a request when it is only counted."""

    messages: Annotated[list[AnyMessage], Field(min_length=1, max_length=MESSAGES_MAX)]
    system: str | Annotated[list[SystemBlock], Field(max_length=PARTS_MAX)] | None = None
    stop_sequences: Annotated[
        StopList | None, Field(description="Up to 4 of at most 64 bytes; not part of the text.")
    ] = None
    tools: Annotated[list[MessagesTool] | None, Field(max_length=TOOLS_MAX)] = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    metadata: Annotated[dict[str, Any] | None, Field(description="Ignored.")] = None
    model: Annotated[Any, Field(description="Ignored: there is one model.")] = None
    session_id: SessionId = None

    @property
    def shape(self) -> Shape:
        """What the reply may look like.

        Raises:
            InvalidInput: the tools do not allow it, or a call is asked for beside thinking.
        """
        choice = self.tool_choice or ToolChoice(type="auto")
        kinds: dict[str, Literal["auto", "none", "required", "named"]] = {"any": "required", "tool": "named"}
        shape = Shape(
            choice=kinds.get(choice.type) or ("none" if choice.type == "none" else "auto"),
            tool=choice.name,
            parallel=not choice.disable_parallel_tool_use,
        )
        if shape.forced and self._thinks:
            raise InvalidInput(
                "tool_choice: a call can only be forced with thinking off; use `auto`, or disable thinking",
                param="tool_choice",
            )
        return checked_shape(shape, self._tools)

    def conversation(self, dialect: Dialect) -> Conversation:
        """What is to be continued, by a model of that ``dialect``.

        Raises:
            InvalidInput: as :attr:`shape`, or two tools have the same name.
        """
        said = [message for wire in self.messages for message in wire.messages]
        if (system := self._system) is not None:
            said.insert(0, Message("system", system))
        options = with_thinking({}, self._thinks, forced=self.shape.forced, dialect=dialect)
        return Conversation(tuple(said), self._tools, options)

    @property
    def _thinks(self) -> bool | None:
        """Whether thinking is asked for; None where nothing is said of it."""
        kind = None if self.thinking is None else self.thinking.type
        if kind == "disabled":
            return False
        effort = None if self.output_config is None else self.output_config.effort
        if effort is not None:
            return thinks(effort)
        return None if kind is None else True

    @property
    def _system(self) -> str | None:
        system = self.system or ""
        return (system if isinstance(system, str) else joined(block.text for block in system)) or None

    @property
    def _tools(self) -> tuple[Tool, ...]:
        return checked_tools([tool.tool for tool in self.tools or ()])


class CountBody(Asked):
    """A messages request whose prompt is to be counted; how long the reply may be and how it is sampled is ignored."""

    max_tokens: Annotated[int | None, Field(ge=1, lt=INT64)] = None


class MessagesBody(Asked):
    """A conversation to continue, alone or as a turn of a session."""

    max_tokens: Annotated[int, Field(ge=1, lt=INT64, description="Longest reply.")]
    session_id: OldSessionId = None

    @property
    def shows_thinking(self) -> bool:
        """Whether thinking blocks come with their text."""
        return self.thinking is None or self.thinking.display != "omitted"

    @property
    def sampling(self) -> Sampling:
        """How to generate."""
        return self._sampling(self.max_tokens, self.stop_sequences)
