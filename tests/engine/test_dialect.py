"""Replies taken apart with vLLM's parsers, on real vocabularies and without an engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from streams.engine.base import Piece, ReplyReader
from streams.engine.dialect import VllmDialect
from streams.engine.parser_table import parsers_for
from streams.engine.tokenizer import HfTokenizer
from streams.errors import InvalidInput, ModelError
from streams.messages import Conversation, Message, Shape, Tool
from tests.engine.models import QWEN3, byte_level, renamed

LOOK = Tool("look", "Look at it.", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
CALL = '<tool_call>\n{"name": "look", "arguments": {"n": %s}}\n</tool_call>'
NAMES = {
    "<file_sep>": "<think>",
    "<filename>": "</think>",
    "<gh_stars>": "<tool_call>",
    "<issue_start>": "</tool_call>",
}


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> HfTokenizer:
    return HfTokenizer.load(model_path)


@pytest.fixture(scope="module")
def dialect(tokenizer: HfTokenizer) -> VllmDialect:
    return VllmDialect.load(tokenizer)


@pytest.fixture(scope="module")
def thinker(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> HfTokenizer:
    """A model that thinks, and whose calls are in tokens of their own."""
    return HfTokenizer.load(renamed(model_path, tmp_path_factory.mktemp("thinker"), NAMES, QWEN3))


@pytest.fixture(scope="module")
def thinking(thinker: HfTokenizer) -> VllmDialect:
    return VllmDialect.load(thinker)


class Read(NamedTuple):
    reasoning: str
    content: str
    calls: list[tuple[str, str]]


def read(reader: ReplyReader, pieces: Sequence[tuple[str, Sequence[int]]]) -> Read:
    """What a reader makes of pieces of text with their tokens."""
    deltas = [reader.read(Piece(text, tuple(ids), (), 0, None)) for text, ids in pieces]
    deltas.append(reader.read(Piece("", (), (), 0, "stop")))
    calls = reader.calls()
    assert len({call.id for call in calls}) == len(calls)
    return Read(
        "".join(delta.reasoning for delta in deltas),
        "".join(delta.content for delta in deltas),
        [(call.name, call.arguments) for call in calls],
    )


def cut(text: str, size: int) -> list[tuple[str, list[int]]]:
    return [(text[at : at + size], [97] * len(text[at : at + size])) for at in range(0, len(text), size)]


def by_token(tokenizer: HfTokenizer, text: str) -> list[tuple[str, list[int]]]:
    ids = tokenizer.encode_markup(text)
    return [(tokenizer.token_bytes(i).decode(), [i]) for i in ids]


def conversation(*tools: Tool, **options: object) -> Conversation:
    return Conversation((Message("user", "Hi"),), tools, options)


def prompt(tokenizer: HfTokenizer, **options: object) -> list[int]:
    return tokenizer.encode_markup(tokenizer.render([{"role": "user", "content": "Hi"}], options))


# Picking parsers


@pytest.mark.parametrize(
    ("template", "tool", "reasoning"),
    [
        ("{{ messages }}", "hermes", None),
        ("{{ tools }}<tool_call>", "hermes", None),
        (QWEN3, "hermes", "qwen3"),
        ("{{ tools }}<tool_call>\n<function=x>{% if enable_thinking %}<think></think>", "qwen3_coder", "qwen3"),
        ("{{ tools }}[AVAILABLE_TOOLS][TOOL_CALLS]", "mistral", None),
        ("{{ tools }}[TOOL_CALLS][THINK]", "mistral", "mistral"),
        ("{{ tools }}<|start_header_id|>Environment: ipython<|python_tag|>", "llama3_json", None),
        ("{{ tools }}<|header_start|>", "llama4_json", None),
        ("{{ tools }}<｜tool▁calls▁begin｜>```json<think></think>", "deepseek_v3", "deepseek_r1"),
        ("{{ tools }}{% if thinking %}</think>{% endif %}<｜tool▁calls▁begin｜>", "deepseek_v31", "deepseek_v3"),
        ("{{ tools }}<arg_key><think></think>{{ enable_thinking }}<tool_call>", "glm45", "glm45"),
        ("{{ tools }}<|tool_calls_section_begin|>", "kimi_k2", None),
        ("{{ tools }}functools[", "phi4_mini_json", None),
        ("{{ tools }}<|start|><|channel|>analysis<|message|>", "openai", "openai_gptoss"),
        ("{{ tools }}<|tool_call>call<tool_call|><|channel>thought<channel|>", "gemma4", "gemma4"),
        ("{{ tools }}<minimax:tool_call><think></think>", "minimax_m2", "minimax_m2"),
        ("{{ tools }}<|start_of_role|><|tool_call|>", "granite", None),
        ("<think>\n</think>", "hermes", "deepseek_r1"),
    ],
)
def test_parsers_are_picked_by_what_the_template_writes(template: str, tool: str, reasoning: str | None) -> None:
    assert parsers_for(template) == (tool, reasoning)


def test_the_shipped_model_is_explained_how_to_call(dialect: VllmDialect) -> None:
    assert (dialect.takes_tools, dialect.reasons, dialect.switchable) == (False, False, False)
    assert dialect.reasoning_parser is None


def test_a_model_that_thinks_is_told_from_its_template(thinking: VllmDialect) -> None:
    assert (thinking.takes_tools, thinking.reasons, thinking.switchable) == (True, True, True)
    assert thinking.reasoning_parser == "qwen3"


def test_a_template_from_another_model_is_no_reason_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    borrowed = byte_level("{{ tools }}[TOOL_CALLS]<think></think>{{ enable_thinking }}", added=())
    loaded = VllmDialect.load(borrowed)
    assert (loaded.reasons, loaded.switchable, loaded.takes_tools) == (False, False, True)
    assert "calls are read as hermes, reasoning as None" in caplog.text


@pytest.mark.parametrize(("tool", "reasoning"), [("hermess", None), (None, "qwen33")])
def test_an_unknown_parser_is_refused_with_those_there_are(
    tokenizer: HfTokenizer, tool: str | None, reasoning: str | None
) -> None:
    with pytest.raises(ModelError, match=r"There is no .*_parser named '.*'; vLLM has none, .*(hermes|qwen3)"):
        VllmDialect.load(tokenizer, tool, reasoning)


def test_a_parser_that_was_asked_for_is_not_given_up(tokenizer: HfTokenizer) -> None:
    with pytest.raises(ModelError, match="deepseek_r1"):
        VllmDialect.load(tokenizer, reasoning="deepseek_r1")


def test_parsers_can_be_switched_off(thinker: HfTokenizer) -> None:
    silent = VllmDialect.load(thinker, "none", "none")
    assert (silent.reasons, silent.switchable) == (False, False)
    reader = silent.reader(conversation(LOOK), Shape(), prompt(thinker))
    assert read(reader, by_token(thinker, CALL % 1)).content == CALL % 1
    with pytest.raises(InvalidInput) as refused:
        silent.reader(conversation(LOOK), Shape("required"), prompt(thinker))
    assert refused.value.param == "tool_choice"


# Calls


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("text", "content", "arguments"),
    [
        ("Hello < b", "Hello < b", []),
        (" a \n b ", " a \n b ", []),
        (f"I look.\n\n{CALL % 1}", "I look.", ['{"n":1}']),
        (f"{CALL % 1} and {CALL % 2} bye", "", ['{"n":1}', '{"n":2}']),
        ("a <tool_ca", "a <tool_ca", []),
        (CALL % '"ü}</b>"', "", ['{"n":"ü}</b>"}']),
    ],
)
def test_calls_are_taken_out_of_the_text(
    dialect: VllmDialect, text: str, content: str, arguments: list[str], size: int
) -> None:
    reader = dialect.reader(conversation(LOOK), Shape(), ())
    assert read(reader, cut(text, size)) == ("", content, [("look", a) for a in arguments])
    assert (reader.malformed, reader.constraint) == (False, None)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_what_is_no_call_after_all_is_text(dialect: VllmDialect, size: int) -> None:
    reader = dialect.reader(conversation(LOOK), Shape(), ())
    text = "Hm. <tool_call>\nlook(3)"
    assert read(reader, cut(text, size)) == ("", text, [])
    assert reader.malformed


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_call_that_is_cut_off_keeps_what_there_is(dialect: VllmDialect, size: int) -> None:
    reader = dialect.reader(conversation(LOOK), Shape(), ())
    text = 'Hm. <tool_call>\n{"name": "look", "arguments": {"n": 1, "why": "be'
    assert read(reader, cut(text, size)) == ("", "Hm.", [("look", '{"n": 1, "why": "be')])
    assert reader.malformed


def test_a_parser_that_fails_costs_the_structure_and_no_text(
    dialect: VllmDialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = dialect.reader(conversation(LOOK), Shape(), ())
    text = f"First. {CALL % 1} Then."
    parser = reader._parser  # type: ignore[attr-defined]
    healthy = parser.parse_delta

    def failing(text: str, *args: object, **options: object) -> object:
        if "<" in text:
            raise ValueError("what a parser of vLLM's raises on text that it does not expect")
        return healthy(text, *args, **options)

    monkeypatch.setattr(parser, "parse_delta", failing)
    found = read(reader, cut(text, 1))
    assert found.content == text.rstrip()
    assert [name for name, _ in found.calls] == ["look"], "the whole text is read once more"


def test_tools_that_must_not_be_called_are_not(dialect: VllmDialect) -> None:
    reader = dialect.reader(conversation(LOOK), Shape("none"), ())
    assert read(reader, cut(CALL % 1, 1)) == ("", CALL % 1, [])


def test_a_single_call_ends_the_reply(dialect: VllmDialect) -> None:
    reader = dialect.reader(conversation(LOOK), Shape(parallel=False), ())
    assert reader.constraint is not None  # the grammar ends it
    assert reader.constraint.value["format"]["stop_after_first"]
    assert read(reader, cut(CALL % 1 + CALL % 2, 1)).calls == [("look", '{"n":1}')]


def test_a_single_call_in_a_format_without_a_grammar_ends_where_its_arguments_do() -> None:
    lists = byte_level("{{ tools }}functools[", added=())
    reader = VllmDialect.load(lists).reader(conversation(LOOK), Shape(parallel=False), ())
    text = 'functools[{"name": "look", "arguments": {"n": 1}}]'
    ended = []
    for character in text:
        reader.read(Piece(character, tuple(lists.encode(character)), (), 0, None))
        ended.append(reader.call_ended)
    reader.read(Piece("", (), (), 0, "stop"))
    assert reader.constraint is None
    assert not any(ended[: text.index("}")])
    assert [call.arguments for call in reader.calls()] == ['{"n":1}']


# Reasoning


TEXT = "<think>\nIs it < 3?\n</think>\n\nIt is 2."


@pytest.mark.parametrize("late", [False, True], ids=["text with its tokens", "text later than its tokens"])
def test_reasoning_is_told_apart(thinking: VllmDialect, thinker: HfTokenizer, late: bool) -> None:
    pieces = by_token(thinker, TEXT)
    reader = thinking.reader(conversation(), Shape(), prompt(thinker))
    assert reader.thinking
    if late:  # as where the end of the text may become a stop sequence
        texts = ["", "", *(text for text, _ in pieces)]
        pieces = [(text, ids) for text, (_, ids) in zip(texts, [*pieces, ("", []), ("", [])], strict=True)]
    assert read(reader, pieces) == ("Is it < 3?", "It is 2.", [])
    assert reader.reasoning_tokens == len(thinker.encode_markup(TEXT.partition("\n\n")[0]))
    assert not reader.thinking


def test_thinking_says_what_the_next_token_is(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    reader = thinking.reader(conversation(), Shape(), prompt(thinker))
    told = []
    for text, ids in by_token(thinker, TEXT):
        told.append(reader.thinking)
        reader.read(Piece(text, tuple(ids), (), 0, None))
    assert told == sorted(told, reverse=True)
    assert sum(told) == reader.reasoning_tokens


def test_several_tokens_in_a_piece_are_told_apart_too(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    reader = thinking.reader(conversation(LOOK), Shape(), prompt(thinker))
    text = f"{TEXT}\n{CALL % 1}"
    assert read(reader, [(text, thinker.encode_markup(text))]) == ("Is it < 3?", "It is 2.", [("look", '{"n":1}')])
    assert reader.reasoning_tokens == len(thinker.encode_markup(TEXT.partition("\n\n")[0]))


def test_reasoning_stays_in_the_content_where_it_shall(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    reader = thinking.reader(conversation(LOOK), Shape(separate_reasoning=False), prompt(thinker))
    text = f"{TEXT}\n{CALL % 1}"
    assert read(reader, by_token(thinker, text)) == ("", TEXT, [("look", '{"n":1}')])
    assert reader.reasoning_tokens > 0


def test_a_reply_cut_off_in_its_reasoning_is_reasoning_only(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    reader = thinking.reader(conversation(LOOK), Shape(), prompt(thinker))
    assert read(reader, by_token(thinker, "<think>\nIs it < 3? I wou")) == ("Is it < 3? I wou", "", [])
    assert reader.thinking


def test_a_prompt_that_closed_the_reasoning_has_none_to_come(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    closed = prompt(thinker, enable_thinking=False)
    reader = thinking.reader(conversation(LOOK, enable_thinking=False), Shape(), closed)
    assert not reader.thinking
    assert read(reader, by_token(thinker, f"It is 2. {CALL % 1}")) == ("", "It is 2.", [("look", '{"n":1}')])
    assert reader.reasoning_tokens == 0


@pytest.mark.parametrize("reasoning", ["qwen3", "deepseek_r1"])
def test_reasoning_of_earlier_replies_is_no_news_of_this_one(thinker: HfTokenizer, reasoning: str) -> None:
    earlier = thinker.encode_markup(f"<|im_start|>assistant\n{TEXT}<|im_end|>\n")
    reader = VllmDialect.load(thinker, None, reasoning).reader(conversation(), Shape(), earlier + prompt(thinker))
    assert reader.thinking
    assert read(reader, by_token(thinker, TEXT)) == ("Is it < 3?", "It is 2.", [])


def test_the_end_of_a_message_is_never_text(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    reader = thinking.reader(conversation(LOOK), Shape(), prompt(thinker))
    assert reader.keep_markup
    assert read(reader, by_token(thinker, f"{TEXT}<|im_end|>")).content == "It is 2."


# Constraints


def schemas_of(value: object) -> list[Mapping[str, object]]:
    """The JSON schemas in a structural tag."""
    if isinstance(value, Mapping):
        own = [value["json_schema"]] if value.get("type") == "json_schema" else []
        return own + [schema for part in value.values() for schema in schemas_of(part)]
    return [schema for part in value for schema in schemas_of(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("shape", [Shape("required"), Shape("required", parallel=False), Shape("named", "look")])
def test_forced_calls_are_held_to_their_schemas(dialect: VllmDialect, shape: Shape) -> None:
    constraint = dialect.reader(conversation(LOOK), shape, ()).constraint
    assert constraint is not None
    assert (constraint.kind, constraint.fit, constraint.after_reasoning) == ("structural_tag", True, False)
    schemas = schemas_of(constraint.value)
    assert schemas
    assert all(schema["properties"] == {"n": {"type": "integer"}} for schema in schemas)


def test_a_named_call_is_of_that_tool_alone(dialect: VllmDialect) -> None:
    unenforceable = Tool("other", None, {"type": "object", "properties": {"n": {"multipleOf": 3}}})
    constraint = dialect.reader(conversation(unenforceable, LOOK), Shape("named", "look"), ()).constraint
    assert constraint is not None
    assert "other" not in json.dumps(constraint.value)


def test_a_constraint_waits_for_the_end_of_the_reasoning(thinking: VllmDialect, thinker: HfTokenizer) -> None:
    open_, closed = prompt(thinker), prompt(thinker, enable_thinking=False)
    for shape in (Shape("required"), Shape(schema={"type": "object"})):
        constraints = [thinking.reader(conversation(LOOK), shape, tokens).constraint for tokens in (open_, closed)]
        assert [c is not None and c.after_reasoning for c in constraints] == [True, False]


def test_a_format_beside_tools_leaves_the_choice(dialect: VllmDialect) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    constraint = dialect.reader(conversation(LOOK), Shape(schema=schema), ()).constraint
    assert constraint is not None
    assert constraint.value["format"]["type"] == "or"
    assert any("a" in schema.get("properties", {}) for schema in schemas_of(constraint.value) if schema is not True)


def test_a_tool_without_parameters_takes_no_arguments(dialect: VllmDialect) -> None:
    for parameters in (None, {}, {"type": "object"}):
        constraint = dialect.reader(conversation(Tool("go", None, parameters)), Shape("required"), ()).constraint
        assert constraint is not None
        assert all(schema["additionalProperties"] is False for schema in schemas_of(constraint.value))


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        (Shape("required"), "tools.1.function.parameters"),
        (Shape(schema={"type": "string", "not": {}}), "response_format"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(dialect: VllmDialect, shape: Shape, param: str) -> None:
    odd = Tool("odd", None, {"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 3}}})
    with pytest.raises(InvalidInput, match=r"`(multipleOf|not)`") as refused:
        dialect.reader(conversation(LOOK, odd), shape, ())
    assert refused.value.param == param
    dialect.reader(conversation(LOOK, odd), Shape(), ())  # nobody promises anything of calls that are not forced
