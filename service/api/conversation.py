"""From either chat surface's request to the core's conversation: what both do alike. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from service.api.fields import NAME, SESSION_HEADER
from streams.engine.base import Dialect
from streams.errors import InvalidInput
from streams.messages import Shape, Tool

MESSAGES_MAX = 10_000
PARTS_MAX = 10_000
CALLS_MAX = 1000
TOOLS_MAX = 128
IN_THE_HEADER = f"is not read from the body; send the session's id in the header {SESSION_HEADER}"
NO_VISION = "this model has no vision and cannot read images; send text only"


def _in_the_header(_: object) -> NoReturn:
    raise ValueError(IN_THE_HEADER)


def _of_an_object(schema: dict[str, Any]) -> dict[str, Any]:
    if schema.get("type", "object") != "object":
        raise ValueError("must be a JSON schema of an object: its `type` must be `object`")
    return schema


SessionId = SkipJsonSchema[Annotated[Any, BeforeValidator(_in_the_header)]]
"""A field that clients of older servers send."""
OldSessionId = SkipJsonSchema[Annotated[str | None, Field(max_length=128)]]
"""The same where it may name an old-style session; see :mod:`service.api.legacy.kind`."""
Name = Annotated[str, Field(pattern=NAME, description="1 to 64 of A-Z a-z 0-9 _ -.")]
CalledName = Annotated[str, Field(min_length=1, max_length=256)]
"""Name of a tool in a call that was made, perhaps under another server's rules."""
ObjectSchema = Annotated[dict[str, Any], AfterValidator(_of_an_object)]


def tag_of(value: Any, key: str, default: str | None = None) -> str | None:
    """Which branch of a union ``value`` is meant for, by one of its fields.

    Tags stand in the paths of errors, where a client's own keys are looked for: few of those have a colon.
    """
    kind = value.get(key, default) if isinstance(value, dict) else getattr(value, key, None)
    return f"{key}:{kind}" if isinstance(kind, str) else None


def joined(texts: Iterable[str]) -> str:
    """Parts of one message as one text; parts are paragraphs."""
    return "\n".join(texts)


def arguments_text(value: Any) -> str:
    """A call's arguments as JSON text. Text is taken for JSON already; nothing is an empty object."""
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def checked_tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    """The tools of a request.

    Raises:
        InvalidInput: two have the same name.
    """
    names = [tool.name for tool in tools]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidInput(f"tools.{index}: there is a tool named `{name}` before it; rename one", param="tools")
    return tuple(tools)


def checked_shape(shape: Shape, tools: Sequence[Tool]) -> Shape:
    """A shape that the tools allow. A named tool is called once; a forced call leaves no content to constrain.

    Raises:
        InvalidInput: a call is asked for and there are no tools, or no tool of that name.
    """
    if not shape.forced:
        return shape
    if not tools:
        raise InvalidInput(
            "tool_choice: a call is asked for and there are no tools; send `tools`, or leave tool_choice out",
            param="tool_choice",
        )
    if shape.choice == "named" and shape.tool not in [tool.name for tool in tools]:
        raise InvalidInput(f"tool_choice: there is no tool named `{shape.tool}` in `tools`", param="tool_choice")
    return Shape(
        choice=shape.choice,
        tool=shape.tool,
        parallel=shape.parallel and shape.choice != "named",
        separate_reasoning=shape.separate_reasoning,
    )


def with_thinking(
    options: Mapping[str, object], asked: bool | None, *, forced: bool, dialect: Dialect
) -> dict[str, object]:
    """Template options with thinking as the request wants it.

    Args:
        options: the others.
        asked: whether to think; None leaves it to the template, except that a forced call is made at once.
        forced: the reply must be a call.
        dialect: the model's; where thinking cannot be switched there is no such option.
    """
    if asked is None and forced:
        asked = False
    others = {name: value for name, value in options.items() if name != "enable_thinking"}
    return others if asked is None or not dialect.switchable else {**others, "enable_thinking": asked}
