"""How a model writes calls and reasoning: vLLM's parsers, picked by its chat template, behind our protocol."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from streams.engine.base import Constraint, ReplyReader
from streams.engine.forcing import constraint_of
from streams.engine.parser_table import UNKNOWN, Parsers, opening_of, parsers_for
from streams.engine.reader import PlainReader, VllmReader
from streams.engine.schemas import enforceable
from streams.engine.tokenizer import HfTokenizer
from streams.errors import InvalidInput, ModelError
from streams.messages import Conversation, Shape, Tool

log = logging.getLogger(__name__)

NONE = "none"
_HARMONY = "openai"


class VllmDialect:
    """A :class:`~streams.engine.base.Dialect`."""

    def __init__(self, tokenizer: HfTokenizer, parsers: Parsers, variables: frozenset[str]) -> None:
        """Load the parsers.

        Args:
            tokenizer: of the model.
            parsers: their names.
            variables: what the chat template reads.

        Raises:
            TypeError: the vocabulary lacks what a parser looks for.
        """
        from vllm.tokenizers.hf import get_cached_tokenizer

        self._tokenizer = tokenizer
        self._vocabulary = get_cached_tokenizer(tokenizer.template)
        self._parsers = parsers
        self._both = self._load(parsers.tool, parsers.reasoning)
        self._tools_only = self._load(parsers.tool, None)
        self._reasoning_only = self._load(None, parsers.reasoning)
        self._check_reasoning_end()
        self.takes_tools = "tools" in variables
        self.switchable = parsers.reasoning is not None and "enable_thinking" in variables

    @classmethod
    def load(cls, tokenizer: HfTokenizer, tool: str | None = None, reasoning: str | None = None) -> VllmDialect:
        """The dialect of a model.

        Args:
            tokenizer: of the model, with its chat template.
            tool: vLLM's name of a parser for calls; None to tell from the template, "none" for none.
            reasoning: the same for reasoning.

        Raises:
            ModelError: a parser that is named does not exist, or cannot read this model.
        """
        _check_names(tool, reasoning)
        template = tokenizer.template_text
        told = parsers_for(template)
        variables = _variables(template)
        picked = Parsers(
            told.tool if tool is None else None if tool == NONE else tool,
            told.reasoning if reasoning is None else None if reasoning == NONE else reasoning,
        )
        if tool is None and "tools" not in variables:
            picked = picked._replace(tool=UNKNOWN)
        # A template may be borrowed from a model with another vocabulary; what was asked for by name is not given up.
        attempts = [picked]
        if reasoning is None:
            attempts.append(picked._replace(reasoning=None))
        if tool is None:
            attempts += [attempt._replace(tool=UNKNOWN) for attempt in attempts]
        problems: list[Exception] = []
        for attempt in dict.fromkeys(attempts):
            try:
                dialect = cls(tokenizer, attempt, variables)
            except Exception as exc:  # parsers look for what they need in ways of their own
                problems.append(exc)
                continue
            if problems:
                log.warning("tool calls are read as %s, reasoning as %s: %s", *attempt, problems[0])
            return dialect
        raise ModelError(
            f"This model cannot be read with the parsers {picked.tool} and {picked.reasoning}: {problems[0]}",
            param="reasoning_parser" if reasoning else "tool_parser",
        ) from problems[0]

    @property
    def reasoning_parser(self) -> str | None:
        """vLLM's name of the reasoning parser, if there is one."""
        return self._parsers.reasoning

    @property
    def reasons(self) -> bool:
        return self._parsers.reasoning is not None

    def reader(self, conversation: Conversation, shape: Shape, prompt: Sequence[int]) -> ReplyReader:
        """See :meth:`streams.engine.base.Dialect.reader`."""
        called = bool(conversation.tools) and shape.choice != "none" and self._parsers.tool is not None
        if shape.forced and not called:
            raise InvalidInput("This model makes no tool calls; leave `tool_choice` out.", param="tool_choice")
        parser_class = self._both if called else self._reasoning_only
        schema = None if shape.schema is None else enforceable(shape.schema, "response_format")
        if parser_class is None:
            return PlainReader(None if schema is None else Constraint("json", schema))
        tools = [
            _wire(tool, f"tools.{i}.function.parameters" if _forced(tool, shape) else None)
            for i, tool in enumerate(conversation.tools if called else ())
        ]
        request = _request(tools, shape, schema, conversation.options)
        parser = parser_class(self._vocabulary, request.tools, chat_template_kwargs=dict(conversation.options))
        reply_prompt = self._reply_prompt(prompt)
        thinking = self.reasons and not parser.is_reasoning_end(reply_prompt)
        constraint = constraint_of(parser, request, shape, after_reasoning=thinking)
        return VllmReader(
            self._tokenizer,
            parser,
            self._whole(parser, request) if called else None,
            opening_of(self._parsers.tool) if called and self._parsers.tool else "",
            request,
            shape,
            reply_prompt,
            constraint,
            thinking=thinking,
        )

    def _check_reasoning_end(self) -> None:
        """Some parsers make do without a token for the end of reasoning; what waits for it would wait for ever."""
        if self._reasoning_only is None:
            return
        end = self._reasoning_only(self._vocabulary).reasoning_parser.reasoning_end_str
        if end is not None and end not in self._vocabulary.get_vocab():
            raise TypeError(f"the vocabulary has no token {end}")

    def _whole(self, parser: Any, request: Any) -> Any:
        """A parser for complete text, which reads calls in the form that the first one expects."""
        whole = self._tools_only(self._vocabulary, request.tools)
        whole.tool_parser.supports_required_and_named = parser.tool_parser.supports_required_and_named
        return whole

    def _load(self, tool: str | None, reasoning: str | None) -> Any:
        from vllm.parser import ParserManager

        return ParserManager.get_parser(
            tool_parser_name=tool,
            reasoning_parser_name=reasoning,
            enable_auto_tools=True,
            is_harmony=tool == _HARMONY,
            tokenizer=self._vocabulary,
        )

    def _reply_prompt(self, prompt: Sequence[int]) -> list[int]:
        """The end of a prompt, from where the last message ended.

        Earlier replies that are held as they were generated have thoughts of their own, which are no news of this one.
        """
        ends = self._tokenizer.end_ids
        after = next((i + 1 for i in range(len(prompt) - 1, -1, -1) if prompt[i] in ends), 0)
        return list(prompt[after:])


def hush_parsers() -> None:
    """Keep vLLM's parsers from logging a traceback, and the model's words, for each malformed call.

    To be called when vLLM has configured its logging, which it does when an engine is made.
    """
    logging.getLogger("vllm.tool_parsers").setLevel(logging.CRITICAL)


def _check_names(tool: str | None, reasoning: str | None) -> None:
    from vllm.reasoning import ReasoningParserManager
    from vllm.tool_parsers import ToolParserManager

    for name, manager, param in (
        (tool, ToolParserManager, "tool_parser"),
        (reasoning, ReasoningParserManager, "reasoning_parser"),
    ):
        known = manager.list_registered()
        if name not in (None, NONE, *known):
            raise ModelError(f"There is no {param} named {name!r}; vLLM has none, {', '.join(known)}.", param=param)


def _variables(template: str) -> frozenset[str]:
    """What a template reads that is not its own."""
    from vllm.renderers.hf import _resolve_chat_template_kwargs

    return frozenset(_resolve_chat_template_kwargs(template))


def _forced(tool: Tool, shape: Shape) -> bool:
    return shape.choice == "required" or (shape.choice == "named" and tool.name == shape.tool)


def _wire(tool: Tool, param: str | None) -> dict[str, Any]:
    """A tool as OpenAI writes it; with a schema that is enforced if ``param`` names it."""
    parameters = dict(tool.parameters or {})
    if param is not None:
        if parameters.get("type", "object") != "object":
            raise InvalidInput("The parameters of a function are an object; say so in `type`.", param=param)
        # Without properties it takes no arguments, rather than whatever a model comes up with.
        parameters = enforceable({"properties": {}, **parameters, "type": "object"}, param)
    function = {"name": tool.name, "parameters": parameters or None, "description": tool.description}
    return {"type": "function", "function": function | ({"strict": True} if param is not None else {})}


def _request(
    tools: list[dict[str, Any]], shape: Shape, schema: Mapping[str, Any] | None, options: Mapping[str, object]
) -> Any:
    """What vLLM's server would have been asked."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    fields: dict[str, Any] = {
        "messages": [{"role": "user", "content": ""}],
        "model": "",
        "chat_template_kwargs": dict(options),
    }
    if tools:
        named = {"type": "function", "function": {"name": shape.tool}}
        fields |= {
            "tools": tools,
            "tool_choice": named if shape.choice == "named" else shape.choice,
            "parallel_tool_calls": shape.parallel,
        }
    if schema is not None and not shape.forced:
        described = {"name": "content", "schema": schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": described}
    return ChatCompletionRequest(**fields)
