"""Replies in the form of Anthropic's messages, whole and as events. Pure."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, Literal, NotRequired

import orjson
from pydantic import Field, RootModel
from typing_extensions import TypedDict

from service.bodies import RawJson
from streams.engine.base import Delta, Engine
from streams.messages import ToolCall
from streams.reply import Reply

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"]
Event = tuple[str, dict[str, Any]]
"""An event's name and payload, which repeats the name as its type."""


class Thought(TypedDict):
    type: Literal["thinking"]
    thinking: Annotated[str, Field(description="Empty where it is not to be shown.")]
    signature: Annotated[str, Field(description="Opaque.")]


class Said(TypedDict):
    type: Literal["text"]
    text: str


class Use(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: Annotated[Any, Field(description="The model's JSON, unchanged; its text if it is not a JSON object.")]


class MessageUsage(TypedDict):
    input_tokens: Annotated[int, Field(description="Tokens of the prompt that were computed.")]
    cache_read_input_tokens: Annotated[int, Field(description="The other tokens of the prompt.")]
    cache_creation_input_tokens: Annotated[int, Field(description="Always 0.")]
    output_tokens: int
    prefix_cached_tokens: NotRequired[Annotated[int, Field(description="What no session held, if any.")]]


class Message(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[Thought | Said | Use]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageReply(RootModel[Message]):
    """A reply."""


class Counted(TypedDict):
    input_tokens: int


class TokenCount(RootModel[Counted]):
    """Length of the prompt that a request would have."""


class Writer:
    """Writes one reply.

    Args:
        engine: the model's.
        shows_thinking: whether thinking blocks come with their text.
    """

    def __init__(self, engine: Engine, *, shows_thinking: bool) -> None:
        self._model = engine.facts.name
        self._shows_thinking = shows_thinking
        self._id = f"msg_{secrets.token_hex(12)}"

    def whole(self, reply: Reply) -> Message:
        """A reply that has ended."""
        said = reply.message
        content: list[Thought | Said | Use] = []
        if said.reasoning:
            shown = said.reasoning if self._shows_thinking else ""
            content.append(Thought(type="thinking", thinking=shown, signature=_signature(said.reasoning)))
        if said.content:
            content.append(Said(type="text", text=said.content))
        content.extend(_use(call) for call in said.calls)
        return self._message(content, _usage(reply), _stop_reason(reply), _stop_sequence(reply))

    async def events(self, reply: Reply, deltas: AsyncIterator[Delta]) -> AsyncGenerator[Event, None]:
        """The reply as it comes: its start, a block of thinking, one of text and one for each call, how it ended."""
        blocks = _Blocks()
        opened = False
        async for delta in deltas:
            if not opened:
                opened = True
                yield _event("message_start", message=self._message([], _provisional(reply), None, None))
            if delta.reasoning:
                if blocks.kind != "thinking":
                    for event in blocks.start({"type": "thinking", "thinking": ""}):
                        yield event
                blocks.thought.append(delta.reasoning)
                if self._shows_thinking:
                    yield blocks.delta(type="thinking_delta", thinking=delta.reasoning)
            if delta.content:
                if blocks.kind != "text":
                    for event in blocks.start({"type": "text", "text": ""}):
                        yield event
                yield blocks.delta(type="text_delta", text=delta.content)
        for call in reply.message.calls:
            for event in blocks.start({**_use(call), "input": {}}):
                yield event
            yield blocks.delta(type="input_json_delta", partial_json=call.arguments)
        for event in blocks.end():
            yield event
        ending = {"stop_reason": _stop_reason(reply), "stop_sequence": _stop_sequence(reply)}
        yield _event("message_delta", delta=ending, usage=_usage(reply))
        yield _event("message_stop")

    def _message(
        self,
        content: list[Thought | Said | Use],
        usage: MessageUsage,
        stop_reason: StopReason | None,
        stop_sequence: str | None,
    ) -> Message:
        return Message(
            id=self._id,
            type="message",
            role="assistant",
            model=self._model,
            content=content,
            stop_reason=stop_reason,
            stop_sequence=stop_sequence,
            usage=usage,
        )


class _Blocks:
    """Numbers the blocks of a stream as they open, one at a time.

    Attributes:
        kind: of the block that is open.
        thought: what was thought so far, shown or not.
    """

    def __init__(self) -> None:
        self.kind: str | None = None
        self.thought: list[str] = []
        self._index = -1

    def start(self, block: dict[str, Any]) -> list[Event]:
        """End the block that is open, and open another."""
        ended = self.end()
        self.kind = block["type"]
        self._index += 1
        return [*ended, _event("content_block_start", index=self._index, content_block=block)]

    def delta(self, **delta: str) -> Event:
        """Add to the block that is open."""
        return _event("content_block_delta", index=self._index, delta=delta)

    def end(self) -> list[Event]:
        """End the block that is open, if one is."""
        if self.kind is None:
            return []
        signed = self.kind == "thinking"
        signature = [self.delta(type="signature_delta", signature=_signature("".join(self.thought)))] if signed else []
        self.kind = None
        return [*signature, _event("content_block_stop", index=self._index)]


def _event(kind: str, **payload: Any) -> Event:
    return kind, {"type": kind, **payload}


def _use(call: ToolCall) -> Use:
    return Use(
        type="tool_use",
        id=f"toolu_{call.id.removeprefix('call_')}",
        name=call.name,
        input=_input(call.arguments),
    )


def _input(arguments: str) -> RawJson | str:
    try:
        is_object = isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return arguments
    return RawJson(arguments) if is_object else arguments


def _signature(thought: str) -> str:
    return base64.b64encode(hashlib.sha256(thought.encode()).digest()).decode()


def _stop_sequence(reply: Reply) -> str | None:
    return reply.stop if reply.finish_reason == "stop" else None


def _stop_reason(reply: Reply) -> StopReason:
    if reply.finish_reason == "tool_calls":
        return "tool_use"
    if reply.finish_reason == "length":
        return "model_context_window_exceeded" if reply.full else "max_tokens"
    return "end_turn" if reply.stop is None else "stop_sequence"


def _usage(reply: Reply) -> MessageUsage:
    usage = MessageUsage(
        input_tokens=reply.prompt_tokens - reply.cached_tokens,
        cache_read_input_tokens=reply.cached_tokens,
        cache_creation_input_tokens=0,
        output_tokens=reply.completion_tokens,
    )
    if reply.prefix_cached_tokens:
        usage["prefix_cached_tokens"] = reply.prefix_cached_tokens
    return usage


def _provisional(reply: Reply) -> MessageUsage:
    """Before the end, the whole prompt counts as computed and nothing as generated."""
    return MessageUsage(
        input_tokens=reply.prompt_tokens, cache_read_input_tokens=0, cache_creation_input_tokens=0, output_tokens=0
    )
