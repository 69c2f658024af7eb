"""Conversations as the chat surfaces speak of them, free of either surface's wire format. Pure, no I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

_STRING_OR_SPACE = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\n\r]+')

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made.

    Attributes:
        id: names the call in the tool's answer; made by the server or echoed by a client, never compared.
        name: the tool.
        arguments: the text of a JSON object, compact where the server made it; text that does not parse when the model
            failed to write one.
    """

    id: str
    name: str
    arguments: str

    @property
    def parsed(self) -> Any:
        """The arguments as JSON values; the raw text if they do not parse."""
        try:
            return json.loads(self.arguments)
        except ValueError:
            return self.arguments


def compact(text: str) -> str:
    """JSON text without white space between its parts, exact otherwise; text that is not JSON as it is."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    return _STRING_OR_SPACE.sub(r"\1", text)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; ``parameters`` is a JSON schema of an object."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Attributes:
        role: who speaks.
        content: text, without reasoning and calls.
        reasoning: what the model thought before, without markers; None when it did not, or when a client left it out.
        calls: the calls of an assistant.
        call_id: which call a tool's message answers.
        raw: an assistant's text as generated, reasoning and its markers included; a client that asked for this form
            sends it back as ``content``. None for messages of clients.
    """

    role: Role
    content: str = ""
    reasoning: str | None = None
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""
    raw: str | None = None

    def echoes(self, held: Message) -> bool:
        """Whether a client that sends this message repeats ``held``, which the stream has.

        Reasoning may be left out; call ids are nobody's meaning; white space around a reply is not either, for clients
        trim it.
        """
        if self.role != held.role:
            return False
        if self.role != "assistant":
            return self.content == held.content
        if self.reasoning is not None and held.reasoning is not None and self.reasoning != held.reasoning:
            return False
        said = self.content.strip()
        same = said == held.content.strip() or (held.raw is not None and said == held.raw.strip())
        return same and [_meaning(call) for call in self.calls] == [_meaning(call) for call in held.calls]


def _meaning(call: ToolCall) -> tuple[str, str]:
    return call.name, json.dumps(call.parsed, sort_keys=True)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a chat request asks to be continued.

    Attributes:
        messages: at least one.
        tools: what the model may call; part of the prompt.
        options: template options, such as ``enable_thinking``.
    """

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shape:
    """What a reply may look like, and how it is taken apart.

    Attributes:
        choice: whether tools are called: as the model likes, never, at least one of any, or the one named ``tool``.
        tool: the tool to call when ``choice`` is ``named``.
        parallel: whether there may be several calls; if not, the reply ends after the first.
        schema: JSON schema of the whole content; None for free text.
        separate_reasoning: False leaves reasoning, markers and all, in the content.
    """

    choice: Literal["auto", "none", "required", "named"] = "auto"
    tool: str | None = None
    parallel: bool = True
    schema: Mapping[str, Any] | None = None
    separate_reasoning: bool = True

    @property
    def forced(self) -> bool:
        """Whether the reply must be a call."""
        return self.choice in ("required", "named")
