"""Prompts: the model's chat template, cut open so that data can flow into the user message.

A stream renders as one conversation whose user message stays open::

    head  = [system message] + opening of the user message        (markup, rendered once)
    data  = the entries pushed so far                              (untrusted text)
    question + tail                                                (tail: close the message, open the reply)

Data only ever appends to ``head + data``, so the KV cache of everything before stays valid.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from streams.engine.base import Tokenizer
from streams.errors import InvalidInput

# Neither occurs in a chat template; both survive templates that trim or change nothing but whitespace.
_SYSTEM_MARK = "\u2402SYSTEM\u2403"
_USER_MARK = "\u2402USER\u2403"
_CACHED_FRAMES = 256


@dataclass(frozen=True, slots=True)
class Frame:
    """Token ids around the data: ``head`` before it, ``tail`` after the question."""

    head: tuple[int, ...]
    tail: tuple[int, ...]


class Framer:
    """Cuts a model's chat template into frames. Frames are cached: rendering costs milliseconds.

    Args:
        tokenizer: renders the template and tokenizes its parts.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._frames: OrderedDict[str, Frame] = OrderedDict()

    def frame(self, system: str | None = None, options: Mapping[str, object] | None = None) -> Frame:
        """The frame for a system prompt and template options (such as ``enable_thinking``).

        Raises:
            InvalidInput: the template does not take a system message, or drops or doubles what it is given.
        """
        options = options or {}
        key = json.dumps([system, options], sort_keys=True)
        found = self._frames.get(key)
        if found is None:
            found = self._frames[key] = self._cut(system, options)
            if len(self._frames) > _CACHED_FRAMES:
                self._frames.popitem(last=False)
        self._frames.move_to_end(key)
        return found

    def _cut(self, system: str | None, options: Mapping[str, object]) -> Frame:
        messages = [{"role": "user", "content": _USER_MARK}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": _SYSTEM_MARK})
        before, tail = _split(self._tokenizer.render(messages, options), _USER_MARK, "user")
        if system is None:
            head = self._tokenizer.encode_markup(before)
        else:
            opening, middle = _split(before, _SYSTEM_MARK, "system")
            head = [
                *self._tokenizer.encode_markup(opening),
                *self._tokenizer.encode(system),
                *self._tokenizer.encode_markup(middle),
            ]
        return Frame(tuple(head), tuple(self._tokenizer.encode_markup(tail)))


def _split(rendered: str, mark: str, role: str) -> tuple[str, str]:
    parts = rendered.split(mark)
    if len(parts) != 2:
        raise InvalidInput(
            f"this model's chat template has no place for a {role} message; "
            + ("leave out `system`" if role == "system" else "serve a model with a chat template"),
            param=role,
        )
    return parts[0], parts[1]
