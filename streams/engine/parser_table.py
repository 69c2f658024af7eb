"""Which of vLLM's parsers understands a model, told from what its chat template writes. Pure, no I/O."""

from __future__ import annotations

from typing import NamedTuple


class Parsers(NamedTuple):
    """vLLM's names for parsers; None where there is nothing to parse."""

    tool: str | None
    reasoning: str | None


# What a template that contains all of the first writes calls like. Specific ones first: many models borrow <tool_call>.
_TOOLS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|channel|>", "<|message|>"), "openai"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<｜DSML｜",), "deepseek_v32"),
    (("<｜tool▁calls▁begin｜>", "```json"), "deepseek_v3"),
    (("<｜tool▁calls▁begin｜>",), "deepseek_v31"),
    (("<|tool_calls_section_begin|>",), "kimi_k2"),
    (("]<]minimax[>[",), "minimax_m3"),
    (("<minimax:tool_call>",), "minimax_m2"),
    (("<seed:tool_call>",), "seed_oss"),
    (("<longcat_tool_call>",), "longcat"),
    (("<|tool_call>", "<tool_call|>"), "gemma4"),
    (("<start_function_call>",), "functiongemma"),
    (("<|tool_call_start|>",), "lfm2"),
    (("<|action_start|>",), "internlm"),
    (("<function_calls>",), "olmo3"),
    (("[func_name1(", "<|header_start|>"), "llama4_pythonic"),
    (("<|header_start|>",), "llama4_json"),
    (("<|python_tag|>",), "llama3_json"),
    (("<|start_header_id|>", "ipython"), "llama3_json"),
    (("functools[",), "phi4_mini_json"),
    (("<|tool_call|>", "<|start_of_role|>"), "granite"),
    (("<tool_call>", "<|start_of_role|>"), "granite4"),
    (("<arg_key>",), "glm45"),
    (("<tool_call>", "<function="), "qwen3_coder"),
    (("<tool_call>",), "hermes"),
)

# The same for reasoning, where single tokens mark it: only then can a constraint begin at its end.
_REASONING: tuple[tuple[tuple[str, ...], str], ...] = (
    (("<|channel|>", "<|message|>"), "openai_gptoss"),
    (("[THINK]",), "mistral"),
    (("<｜tool▁calls▁begin｜>", "thinking", "</think>"), "deepseek_v3"),
    (("<|tool_calls_section_begin|>", "<think>"), "kimi_k2"),
    (("<minimax:tool_call>", "</think>"), "minimax_m2"),
    (("<seed:think>",), "seed_oss"),
    (("<|channel>", "<channel|>"), "gemma4"),
    (("<arg_key>", "</think>"), "glm45"),
    (("</think>", "enable_thinking"), "qwen3"),
    (("</think>",), "deepseek_r1"),
)

UNKNOWN = "hermes"
"""For templates that render no tools, or in a way that is not known: this one's format is explained in the prompt."""


def parsers_for(template: str) -> Parsers:
    """The parsers for a chat template."""
    return Parsers(
        next((name for marks, name in _TOOLS if all(mark in template for mark in marks)), UNKNOWN),
        next((name for marks, name in _REASONING if all(mark in template for mark in marks)), None),
    )


def opening_of(tool_parser: str) -> str:
    """What the calls that a parser reads begin with; empty where that is not known."""
    return next((marks[0] for marks, name in _TOOLS if name == tool_parser), "")
