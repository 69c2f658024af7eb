"""The model's chat template: whole conversations, and the pieces that a stream is continued with.

A stream renders as one conversation whose last user message stays open::

    head  = [system message, tools] + opening of the first user message       (rendered once)
    data  = the entries pushed so far                                          (untrusted text)
    question + tail                                        (tail: close the message, open the reply)
    turn  = rest of the user message, further messages, the reply; then a user message is opened again

Each piece is cut from a rendering of the whole conversation at an anchor, a word that stands where the stream ends. So
pieces only ever append, and the KV cache of everything before stays valid, even where a template would write earlier
messages differently now.

What clients say is guarded before it is rendered: it cannot become a control token.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from streams.engine.base import Dialect, Tokenizer
from streams.errors import InvalidInput
from streams.messages import Conversation, Message, Tool
from streams.tooltext import tools_in_text

# Nobody can guess them, so no text can hold them; letters and digits alone pass through any template's filters.
_ANCHOR = f"QA{secrets.token_hex(8)}Q"
_GUARD = f"QG{secrets.token_hex(8)}Q"
_CACHED_FRAMES = 256
# Splits differently in nearly any two vocabularies.
_SAMPLE = "Vocabularies differ: 3.14159, naïveté, 温度, {}[]();\n\ttemperature=21.5 heart_rate ASKAHEAD Übergrößen"
# An end-of-message token stands at the very end of a reply, if a template writes one at all.
_END_WITHIN = 3
# The longest opening of a message that a reply is ended for, in the smallest tokens.
_BEGUN_WITHIN = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """Token ids around the data: ``head`` before it, ``tail`` after the question."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


class Template:
    """Renders conversations into tokens. Frames are cached: rendering costs milliseconds.

    Args:
        tokenizer: renders the template and tokenizes.
        dialect: whether the template knows tools and reasoning.
    """

    def __init__(self, tokenizer: Tokenizer, dialect: Dialect) -> None:
        self._tokenizer = tokenizer
        self._dialect = dialect
        self._frames: OrderedDict[str, Frame] = OrderedDict()
        # A standing question needs a short answer, and one asked directly must get the same.
        self.question_options: Mapping[str, object] = {"enable_thinking": False} if dialect.switchable else {}

    def fingerprint(self, name: str) -> str:
        """Tells models of this name apart whose tokens mean something else."""
        frame = self.question_frame(None)
        sample = (*frame.head, *self._tokenizer.encode(_SAMPLE), *frame.tail)
        return f"{name} {hashlib.blake2b(repr(sample).encode(), digest_size=8).hexdigest()}"

    def frame(
        self,
        system: str | None = None,
        options: Mapping[str, object] | None = None,
        tools: Sequence[Tool] = (),
    ) -> Frame:
        """The frame for a system prompt, tools and template options.

        Raises:
            InvalidInput: the template does not take a system message, or drops or doubles what it is given.
        """
        key = json.dumps([system, options or {}, [asdict(tool) for tool in tools]], sort_keys=True)
        found = self._frames.get(key)
        if found is None:
            said = (*_system(system), Message("user", _ANCHOR))
            found = self._frames[key] = Frame(*self._cut(Conversation(said, tuple(tools), options or {}), "user"))
            if len(self._frames) > _CACHED_FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(key)
        return found

    def question_frame(self, system: str | None, options: Mapping[str, object] | None = None) -> Frame:
        """The frame of questions: as :meth:`frame`, without thinking where that can be switched off."""
        return self.frame(system, {**self.question_options, **(options or {})})

    def render(self, conversation: Conversation, *, generation: bool = True) -> tuple[int, ...]:
        """A whole conversation.

        Raises:
            InvalidInput: the template refuses it.
        """
        return self._encode(self._render(conversation, generation))

    def resume(
        self, conversation: Conversation, held: int, *, in_user: bool, generation: bool = True
    ) -> tuple[int, ...]:
        """What follows in a stream that has the first ``held`` messages.

        Args:
            conversation: all messages, the system's among them.
            held: how many of them the stream has. Where ``in_user`` is False the last of these is a reply.
            in_user: the stream ends inside of a user message. If the next message is the user's, it goes on there.
            generation: end with the opening of the reply.

        Raises:
            InvalidInput: the template refuses the conversation.
        """
        messages = list(conversation.messages)
        if in_user and held < len(messages) and messages[held].role == "user":
            messages[held] = replace(messages[held], content=_ANCHOR + messages[held].content)
        elif in_user:
            messages.insert(held, Message("user", _ANCHOR))
        else:
            messages[held - 1] = Message("assistant", _ANCHOR)
        return self._cut(replace(conversation, messages=tuple(messages)), "user", generation)[1]

    def opening(self, conversation: Conversation) -> tuple[int, ...]:
        """What stands between the reply to a conversation and the content of the user message after it."""
        said = (*conversation.messages, Message("assistant", _ANCHOR), Message("user", _ANCHOR))
        rendered = self._render(replace(conversation, messages=said), generation=False)
        parts = rendered.split(_ANCHOR)
        if len(parts) != 3:
            raise InvalidInput("this model's chat template cannot continue after a reply", param="messages")
        return self._encode(parts[1])

    def after_reply(self, reply: Sequence[int], following: tuple[int, ...]) -> tuple[int, ...]:
        """``following`` without what the reply ended with already: the end of its message, or more."""
        ends = self._tokenizer.end_ids
        if reply and reply[-1] in ends:
            for index, token in enumerate(following[:_END_WITHIN]):
                if token in ends:
                    return following[index + 1 :]
        # Without a token that ends messages, a model may have begun the next one.
        for length in range(min(len(reply), len(following), _BEGUN_WITHIN), 0, -1):
            if tuple(reply[-length:]) == following[:length]:
                return following[length:]
        return following

    def _cut(self, conversation: Conversation, role: str, generation: bool = True) -> tuple[tuple[int, ...], ...]:
        parts = self._render(conversation, generation).split(_ANCHOR)
        if len(parts) != 2:
            raise InvalidInput(
                f"this model's chat template has no place for a {role} message; name another with --chat-template",
                param=role,
            )
        return tuple(self._encode(part) for part in parts)

    def _render(self, conversation: Conversation, generation: bool) -> str:
        if conversation.tools and not self._dialect.takes_tools:
            conversation = tools_in_text(conversation)
        messages = _wire(conversation.messages)
        tools = [{"type": "function", "function": _present(asdict(tool))} for tool in conversation.tools]
        rendered = self._tokenizer.render(
            self._guarded(messages), conversation.options, tools=self._guarded(tools) or None, generation=generation
        )
        for message in conversation.messages:
            if message.role == "system" and message.content and self._guarded(message.content.strip()) not in rendered:
                raise InvalidInput(
                    "this model's chat template has no place for a system message; leave out `system`", param="system"
                )
        return rendered

    def _guarded(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._tokenizer.guard(value, _GUARD)
        if isinstance(value, Mapping):
            return {self._guarded(key): self._guarded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._guarded(item) for item in value]
        return value

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(token for part in text.split(_GUARD) for token in self._tokenizer.encode_markup(part))


def _system(text: str | None) -> tuple[Message, ...]:
    return () if text is None else (Message("system", text),)


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as templates expect them. Calls are numbered anew: some templates insist on nine characters."""
    shown: list[dict[str, Any]] = []
    numbers: dict[str, tuple[str, str]] = {}
    for message in messages:
        fields: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning is not None:
            fields |= {"reasoning_content": message.reasoning, "reasoning": message.reasoning}
        if message.calls:
            fields["tool_calls"] = []
            for call in message.calls:
                number = f"{len(numbers):09d}"
                numbers[call.id or number] = (number, call.name)
                fields["tool_calls"].append(
                    {"id": number, "type": "function", "function": {"name": call.name, "arguments": call.parsed}}
                )
        if message.role == "tool":
            number, name = numbers.get(message.call_id, ("000000000", ""))
            fields |= {"tool_call_id": number} | ({"name": name} if name else {})
        shown.append(fields)
    return shown
