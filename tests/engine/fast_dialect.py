"""How the in-process engine writes calls and thoughts: ``<tool_call>{…}</tool_call>``, and ``<think>…</think>``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from streams.engine.base import Constraint, Delta, Piece
from streams.errors import InvalidInput
from streams.messages import Conversation, Shape, ToolCall
from tests.engine.fast_tokenizer import ENDOFTEXT, IM_START, THINK

OPEN, CLOSE, END_OF_THOUGHT = "<tool_call>", "</tool_call>", "</think>"


def thinks(prompt: Sequence[int]) -> bool:
    """Whether a prompt ends in the opening of thoughts."""
    opened = max((i for i, token in enumerate(prompt) if token == IM_START), default=0)
    return bytes(token for token in prompt[opened:] if token < ENDOFTEXT) == f"assistant\n{THINK}".encode()


class FastDialect:
    """A :class:`~streams.engine.base.Dialect`."""

    takes_tools = True
    reasons = True
    switchable = True

    def reader(self, conversation: Conversation, shape: Shape, prompt: Sequence[int]) -> FastReader:
        if shape.schema is not None:
            _refuse(shape.schema, "response_format")
        parameters = [tool.parameters or {"type": "object"} for tool in conversation.tools]
        if shape.forced:
            for i, schema in enumerate(parameters):
                _refuse(schema, f"tools.{i}.function.parameters")
        tags = [
            {
                "type": "tag",
                "begin": f'{OPEN}\n{{"name": {json.dumps(tool.name)}, "arguments": ',
                "content": {"type": "json_schema", "json_schema": schema},
                "end": f"}}\n{CLOSE}",
            }
            for tool, schema in zip(conversation.tools, parameters, strict=True)
            if shape.choice != "named" or tool.name == shape.tool
        ]
        return FastReader(shape, thinks(prompt), tags if conversation.tools else [])


class FastReader:
    """A :class:`~streams.engine.base.ReplyReader`. Takes the whole text apart anew with every piece."""

    keep_markup = False

    def __init__(self, shape: Shape, thinking: bool, tags: list[dict[str, Any]]) -> None:
        self._shape = shape
        self._opened = thinking
        self._calls_read = bool(tags) and shape.choice != "none"
        self._text = ""
        self._told = Delta()
        self._calls: tuple[ToolCall, ...] = ()
        self.reasoning_tokens = 0
        self.malformed = False
        self.constraint: Constraint | None = None
        if shape.forced:
            listed = {"type": "tags_with_separator", "tags": tags, "separator": "", "at_least_one": True}
            self.constraint = Constraint("structural_tag", {"type": "structural_tag", "format": listed})
        elif shape.schema is not None:
            self.constraint = Constraint("json", shape.schema)

    @property
    def thinking(self) -> bool:
        return self._opened and END_OF_THOUGHT not in self._text

    @property
    def call_ended(self) -> bool:
        once = self._calls_read and self._shape.choice == "auto" and not self._shape.parallel
        return once and CLOSE in self._answer()

    def read(self, piece: Piece) -> Delta:
        if self.thinking:
            self.reasoning_tokens += len(piece.token_ids)
        self._text += piece.text
        whole = self._told_so_far(finished=piece.finish_reason is not None)
        news = Delta(whole.reasoning[len(self._told.reasoning) :], whole.content[len(self._told.content) :])
        self._told = whole
        return news

    def calls(self) -> tuple[ToolCall, ...]:
        return self._calls

    def _answer(self) -> str:
        """The text after the thoughts."""
        return self._text.partition(END_OF_THOUGHT)[2].lstrip("\n") if self._opened else self._text

    def _told_so_far(self, *, finished: bool) -> Delta:
        thoughts = self._text.partition(END_OF_THOUGHT)[0] if self._opened else ""
        if self.thinking and not finished:
            thoughts = thoughts[: len(thoughts) - _overlap(thoughts, END_OF_THOUGHT)].rstrip("\n")
        content, opened, rest = self._answer(), "", ""
        if self._calls_read:
            content, opened, rest = content.partition(OPEN)
            if opened or not finished:
                content = content[: len(content) - _overlap(content, OPEN)].rstrip()
        if finished and opened:
            self._calls = tuple(_calls(opened + rest))
            self.malformed = len(self._calls) < (opened + rest).count(OPEN)
            if not self._calls:
                content = self._answer()
        if self._shape.separate_reasoning:
            return Delta(thoughts.rstrip("\n"), content)
        verbatim = self._text[: len(self._text) - len(self._answer())] if self._opened else ""
        return Delta("", (thoughts if self.thinking else verbatim) + content)


def _calls(text: str) -> list[ToolCall]:
    found = []
    for written in re.findall(f"{OPEN}(.*?)(?:{CLOSE}|$)", text, re.DOTALL):
        try:
            call = json.loads(written)
            arguments = json.dumps(call["arguments"], ensure_ascii=False, separators=(",", ":"))
            found.append(ToolCall(f"call_{uuid4().hex}", call["name"], arguments))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _overlap(text: str, marker: str) -> int:
    """How much of the end of ``text`` may be the beginning of ``marker``."""
    return next((n for n in range(len(marker) - 1, 0, -1) if text.endswith(marker[:n])), 0)


def _refuse(schema: Mapping[str, Any], param: str) -> None:
    if "multipleOf" in json.dumps(schema):
        raise InvalidInput("multipleOf cannot be enforced; leave it out of the schema.", param=param)


def obeying(constraint: Constraint) -> str:
    """The shortest text that a constraint allows."""
    if constraint.kind == "json":
        return json.dumps(_minimal(constraint.value, constraint.value))
    tag = constraint.value["format"]["tags"][0]
    schema = tag["content"]["json_schema"]
    return f"{tag['begin']}{json.dumps(_minimal(schema, schema))}{tag['end']}"


def _minimal(schema: Any, root: Mapping[str, Any]) -> Any:
    if not isinstance(schema, Mapping):
        return None
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#").strip("/").split("/"):
            target = target[step] if step else target
        return _minimal(target, root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for either in ("anyOf", "oneOf", "allOf"):
        if either in schema:
            return _minimal(schema[either][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            properties = schema.get("properties", {})
            return {name: _minimal(properties.get(name, {}), root) for name in schema.get("required", ())}
        case "array":
            return [_minimal(schema.get("items", {}), root)] * schema.get("minItems", 0)
        case "string":
            return "x" * schema.get("minLength", 0)
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return False
    return None
