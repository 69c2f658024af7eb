"""The vocabulary and the chat template of the in-process engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from streams.errors import InvalidInput

ENDOFTEXT, IM_START, IM_END = 256, 257, 258
CONTROL = {"<|endoftext|>": ENDOFTEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
SURFACES = {id_: surface for surface, id_ in CONTROL.items()}
VOCABULARY = 259
DEFAULT_SYSTEM = "You are a helpful AI assistant."
THINK, THOUGHT = "<think>\n", "\n</think>\n\n"


class FastTokenizer:
    """One token per byte of UTF-8, three control tokens, and the ChatML template with tools and thoughts.

    With ``enable_thinking`` the reply is opened with its thoughts. As in many templates, thoughts of earlier replies
    are shown only after the last user message.
    """

    control_ids = frozenset(CONTROL.values())
    end_ids = frozenset({ENDOFTEXT, IM_END})

    @property
    def eos_id(self) -> int:
        return IM_END

    def encode(self, text: str) -> list[int]:
        try:
            return list(text.encode())
        except UnicodeEncodeError as exc:
            raise InvalidInput("The text is not valid Unicode: it has half of a surrogate pair.") from exc

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_markup(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            found = [(text.find(surface), surface) for surface in CONTROL if surface in text]
            at, surface = min(found, default=(len(text), ""))
            ids += self.encode(text[:at])
            if surface:
                ids.append(CONTROL[surface])
            text = text[at + len(surface) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self.token_bytes(i) for i in ids).decode()

    def guard(self, text: str, mark: str) -> str:
        self.encode(text)
        for surface in CONTROL:
            text = text.replace(surface, f"{surface[:2]}{mark}{surface[2:]}")
        return text

    def token_bytes(self, token: int) -> bytes:
        return SURFACES[token].encode() if token in SURFACES else bytes([token])

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: Mapping[str, object],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        generation: bool = True,
    ) -> str:
        for message in messages:
            if message.keys() < {"role", "content"}:
                raise InvalidInput("The chat template needs a role and a content.", param="messages")
        shown = list(messages)
        if not shown or shown[0]["role"] != "system":
            shown.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})
        if tools:
            listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
            system = f"{shown[0]['content']}\n\n<tools>\n{listed}\n</tools>"
            shown[0] = {"role": "system", "content": system}
        asked = max((i for i, message in enumerate(shown) if message["role"] == "user"), default=-1)
        turns = "".join(
            f"<|im_start|>{message['role']}\n{_body(message, thoughts=i > asked)}<|im_end|>\n"
            for i, message in enumerate(shown)
        )
        if not generation:
            return turns
        return f"{turns}<|im_start|>assistant\n{THINK if options.get('enable_thinking') else ''}"


def _body(message: Mapping[str, Any], *, thoughts: bool) -> str:
    body = str(message["content"] or "")
    for call in message.get("tool_calls", ()):
        function = call["function"]
        written = json.dumps({"name": function["name"], "arguments": function.get("arguments", {})}, ensure_ascii=False)
        body += f"{chr(10) if body else ''}<tool_call>\n{written}\n</tool_call>"
    thought = message.get("reasoning_content") if thoughts else None
    return body if thought is None else f"{THINK}{thought}{THOUGHT}{body}"
