"""Replies in the form of OpenAI's chat completions, whole and in chunks. Pure."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, RootModel
from typing_extensions import TypedDict

from service.api.chat.protocol import ChatBody
from streams.engine.base import Delta, Engine, Tokenizer
from streams.messages import ToolCall
from streams.reply import Reply

# JSON has no infinity; no model means a finite value this low.
_NEVER = -9999.0


class CallFunction(TypedDict):
    name: str
    arguments: Annotated[str, Field(description="Compact JSON.")]


class Call(TypedDict):
    id: str
    type: Literal["function"]
    function: CallFunction


class ReplyMessage(TypedDict):
    role: Literal["assistant"]
    content: Annotated[str | None, Field(description="Null when it is empty beside reasoning or calls.")]
    reasoning: NotRequired[Annotated[str | None, Field(description="Only of models that reason.")]]
    tool_calls: NotRequired[list[Call]]


class Likely(TypedDict):
    token: Annotated[str, Field(description="Its bytes as UTF-8; U+FFFD for part of a character.")]
    logprob: Annotated[float, Field(description="Natural, before temperature and constraints.")]
    bytes: list[int]


class Logprob(Likely):
    top_logprobs: Annotated[list[Likely], Field(description="Most likely first.")]


class Logprobs(TypedDict):
    content: Annotated[list[Logprob], Field(description="One of each generated token.")]


class Choice(TypedDict):
    index: int
    message: ReplyMessage
    logprobs: Logprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class PromptDetails(TypedDict):
    cached_tokens: Annotated[int, Field(description="Not computed: held by the session, or in the prefix cache.")]
    prefix_cached_tokens: NotRequired[Annotated[int, Field(description="The prefix cache's part, if any.")]]


class CompletionDetails(TypedDict):
    reasoning_tokens: Annotated[int, Field(description="Markers included.")]


class ChatUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: NotRequired[
        Annotated[CompletionDetails, Field(description="Only of models that reason.")]
    ]


class Completion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: Annotated[int, Field(description="Unix seconds.")]
    model: str
    choices: list[Choice]
    usage: ChatUsage


class ChatCompletion(RootModel[Completion]):
    """A reply."""


class Writer:
    """Writes one reply.

    Args:
        body: the request.
        engine: the model's.
    """

    def __init__(self, body: ChatBody, engine: Engine) -> None:
        self._body = body
        self._tokenizer = engine.tokenizer
        self._reasons = engine.dialect.reasons
        self._model = engine.facts.name
        self._shows_reasoning = self._reasons and body.shows_reasoning
        self._id = f"chatcmpl-{secrets.token_hex(12)}"
        self._created = int(time.time())

    def whole(self, reply: Reply) -> Completion:
        """A reply that has ended."""
        said = reply.message
        silent = not said.content and (said.reasoning is not None or bool(said.calls))
        message = ReplyMessage(role="assistant", content=None if silent else said.content)
        if self._shows_reasoning:
            message["reasoning"] = said.reasoning
        if said.calls:
            message["tool_calls"] = [wire_call(call) for call in said.calls]
        return Completion(
            id=self._id,
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=[
                Choice(index=0, message=message, logprobs=self._logprobs(reply), finish_reason=reply.finish_reason)
            ],
            usage=self._usage(reply),
        )

    async def chunks(self, reply: Reply, deltas: AsyncIterator[Delta]) -> AsyncGenerator[dict[str, Any], None]:
        """The reply as it comes: its role, reasoning, content, two chunks for each call, how it ended."""
        opened = False
        held: list[str] = []
        async for delta in deltas:
            if not opened:
                opened = True
                yield self._chunk({"role": "assistant", "content": ""})
            if delta.reasoning and self._shows_reasoning:
                held.append(delta.reasoning)
            if held and (self._body.stream_reasoning or delta.content):
                yield self._chunk({"reasoning": "".join(held)})
                held.clear()
            if delta.content:
                yield self._chunk({"content": delta.content})
        if held:
            yield self._chunk({"reasoning": "".join(held)})
        for index, written in enumerate(wire_call(call) for call in reply.message.calls):
            function = written["function"]
            opening = {**written, "function": {"name": function["name"], "arguments": ""}}
            yield self._chunk({"tool_calls": [{"index": index, **opening}]})
            rest = {"index": index, "function": {"arguments": function["arguments"]}}
            yield self._chunk({"tool_calls": [rest]})
        yield self._chunk({}, finish_reason=reply.finish_reason, logprobs=self._logprobs(reply))
        if self._body.include_usage:
            yield {**self._head, "choices": [], "usage": self._usage(reply)}

    @property
    def _head(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
        }

    def _chunk(
        self, delta: Mapping[str, Any], *, finish_reason: str | None = None, logprobs: Logprobs | None = None
    ) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self._head, "choices": [choice], **usage}

    def _usage(self, reply: Reply) -> ChatUsage:
        details = PromptDetails(cached_tokens=reply.cached_tokens)
        if reply.prefix_cached_tokens:
            details["prefix_cached_tokens"] = reply.prefix_cached_tokens
        usage = ChatUsage(
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            total_tokens=reply.prompt_tokens + reply.completion_tokens,
            prompt_tokens_details=details,
        )
        if self._reasons:
            usage["completion_tokens_details"] = CompletionDetails(reasoning_tokens=reply.reasoning_tokens)
        return usage

    def _logprobs(self, reply: Reply) -> Logprobs | None:
        if not self._body.logprobs:
            return None
        shown = [found for found in reply.logprobs if self._body.include_reasoning or not found.thinking]
        top = self._body.top_logprobs or 0
        return Logprobs(
            content=[
                Logprob(
                    **_likely(self._tokenizer, found.token, found.logprob),
                    top_logprobs=[_likely(self._tokenizer, *one) for one in found.top[:top]],
                )
                for found in shown
            ]
        )


def wire_call(call: ToolCall) -> Call:
    return Call(id=call.id, type="function", function=CallFunction(name=call.name, arguments=call.arguments))


def _likely(tokenizer: Tokenizer, token: int, logprob: float) -> Likely:
    raw = tokenizer.token_bytes(token)
    return Likely(token=raw.decode(errors="replace"), logprob=max(logprob, _NEVER), bytes=list(raw))
