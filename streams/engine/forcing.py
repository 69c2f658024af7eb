"""From what a reply must be to a constraint that even a small model comes to the end of."""

from __future__ import annotations

import json
from typing import Any

from streams.engine.base import Constraint
from streams.messages import Shape

MAX_CALLS = 8
"""Most calls in a reply that must have some; a small model would repeat itself for ever."""

_WHITESPACE = 1


def constraint_of(parser: Any, request: Any, shape: Shape, *, after_reasoning: bool) -> Constraint | None:
    """Let vLLM's parser adjust its request, and take from it what the reply must obey.

    Args:
        parser: a ``vllm.parser.Parser``.
        request: its ``ChatCompletionRequest``; changed.
        shape: what was asked for.
        after_reasoning: the reply begins with reasoning.
    """
    from vllm.sampling_params import StructuredOutputsParams
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
    from vllm.tool_parsers.utils import get_json_schema_from_tools

    if request.tools and request.response_format is not None:
        # Without tags around calls the format would rule them out.
        parser.tool_strict_level = ToolStrictLevel.FUNCTION
    parser.adjust_request(request)
    outputs = request.extract_structured_outputs()
    if outputs is None and shape.forced:
        # There is no grammar of the model's own way to call; vLLM reads calls in plain JSON as well.
        parser.tool_parser.supports_required_and_named = True
        schema = get_json_schema_from_tools(request.tool_choice, request.tools, request.parallel_tool_calls)
        outputs = StructuredOutputsParams(json=schema)
    if outputs is None:
        return None
    if outputs.structural_tag is not None:
        tag = json.loads(outputs.structural_tag)
        tag["format"] = _finite(tag["format"])
        return Constraint("structural_tag", tag, after_reasoning, shape.forced)
    schema = outputs.json if isinstance(outputs.json, dict) else json.loads(outputs.json)
    if shape.forced and schema.get("type") == "array":
        schema["maxItems"] = schema.get("maxItems", MAX_CALLS)
    return Constraint("json", schema, after_reasoning, shape.forced)


def _finite(node: Any) -> Any:
    """Bound what a structural tag allows to go on for ever: white space in arguments, and the number of calls."""
    if isinstance(node, list):
        return [_finite(part) for part in node]
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if kind == "json_schema":
        return node | {"max_whitespace_cnt": _WHITESPACE}
    node = {key: _finite(part) for key, part in node.items()}
    if kind == "tags_with_separator" and node["at_least_one"] and not node["stop_after_first"]:
        call = {"type": "or", "elements": node["tags"]}
        more = call
        if node["separator"]:
            more = {"type": "sequence", "elements": [{"type": "const_string", "value": node["separator"]}, call]}
        others = {"type": "repeat", "min": 0, "max": MAX_CALLS - 1, "content": more}
        return {"type": "sequence", "elements": [call, others]}
    return node
