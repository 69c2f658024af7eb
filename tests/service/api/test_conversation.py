"""From wire to conversation: what clients may write, and what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.chat.protocol import ChatBody
from service.api.conversation import arguments_text, with_thinking
from service.api.messages.protocol import MessagesBody
from service.bodies import parse
from streams.messages import Message, ToolCall
from tests.engine.fast_dialect import FastDialect
from tests.service.api.talking import WEATHER, WEATHER_TOOL, user

JSON = "application/json"

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def from_chat(*messages: Any, **body: Any) -> Sequence[Message]:
    read = parse(orjson.dumps({"messages": messages, **body}), JSON, ChatBody)
    return read.conversation(FastDialect()).messages


def from_messages(*messages: Any, **body: Any) -> Sequence[Message]:
    read = parse(orjson.dumps({"messages": messages, "max_tokens": 5, **body}), JSON, MessagesBody)
    return read.conversation(FastDialect()).messages


# Chat completions


@pytest.mark.parametrize(
    ("content", "text"),
    [("a", "a"), (None, ""), ([], ""), ([{"text": "a"}, {"type": "text", "text": "b"}], "a\nb")],
)
@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_content_of_every_role(role: str, content: Any, text: str) -> None:
    assert from_chat({"role": role, "content": content}) == (Message(role, text),)  # type: ignore[arg-type]
    if content is None:
        assert from_chat({"role": role}) == (Message(role, text),)  # type: ignore[arg-type]


def test_an_alias_of_tool() -> None:
    (message,) = from_chat({"role": "ipython", "content": "12:00", "tool_call_id": "t"})
    assert message == Message("tool", "12:00", call_id="t")


@pytest.mark.parametrize(
    ("given", "reasoning"),
    [
        ({}, None),
        ({"reasoning": None}, None),
        ({"reasoning": ""}, None),
        ({"reasoning": "a"}, "a"),
        ({"reasoning_content": "b"}, "b"),
        ({"reasoning": "a", "reasoning_content": "b"}, "a"),
        ({"reasoning": None, "reasoning_content": "b"}, "b"),
    ],
)
def test_reasoning_under_both_of_its_names(given: dict[str, Any], reasoning: str | None) -> None:
    (message,) = from_chat({"role": "assistant", "content": "x", **given})
    assert message.reasoning == reasoning


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "{}"),
        ({"arguments": None}, "{}"),
        ({"arguments": ""}, "{}"),
        ({"arguments": '{"a": 1}'}, '{"a": 1}'),
        ({"arguments": {"a": [1, "ü"]}}, '{"a":[1,"ü"]}'),
        ({"arguments": "no JSON"}, "no JSON"),
    ],
)
def test_arguments_of_calls(arguments: dict[str, Any], text: str) -> None:
    call = {"id": "c", "function": {"name": "f", **arguments}}
    (message,) = from_chat({"role": "assistant", "tool_calls": [call]})
    assert message.calls == (ToolCall("c", "f", text),)


def test_a_reply_sent_back_repeats_itself() -> None:
    held = Message("assistant", "Hm.", reasoning="thoughts", calls=(ToolCall("c", "f", '{"a":1}'),))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{ "a": 1 }'}}
    (echo,) = from_chat({"role": "assistant", "content": "Hm.", "reasoning": "thoughts", "tool_calls": [call]})
    assert echo.echoes(held)
    block = {"type": "tool_use", "id": "toolu_c", "name": "f", "input": {"a": 1}}
    (echo,) = from_messages({"role": "assistant", "content": [{"type": "text", "text": "Hm."}, block]})
    assert echo.echoes(held)


@given(texts, st.lists(texts, max_size=3), json_values)
def test_chat_keeps_all_text(text: str, parts: list[str], value: Any) -> None:
    call = {"function": {"name": "f", "arguments": {"v": value}}}
    first, second = from_chat(
        user([{"type": "text", "text": part} for part in parts]),
        {"role": "assistant", "content": text, "tool_calls": [call]},
    )
    assert (first.content, second.content) == ("\n".join(parts), text)
    assert second.calls[0].parsed == {"v": value}


def test_tools_and_options_of_a_chat() -> None:
    body = {"messages": [user("x")], "tools": [WEATHER], "chat_template_kwargs": {"date_string": "today"}}
    asked = parse(orjson.dumps({**body, "reasoning_effort": "high"}), JSON, ChatBody).conversation(FastDialect())
    assert asked.options == {"date_string": "today", "enable_thinking": True}
    (tool,) = asked.tools
    assert (tool.name, tool.description) == ("weather", "Looks it up.")
    assert tool.parameters == WEATHER["function"]["parameters"]


# Messages


def block(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


def test_a_user_message_becomes_one_message_of_each_kind_in_order() -> None:
    content = [
        block("text", text="a"),
        block("tool_result", tool_use_id="1", content="one", is_error=True),
        block("tool_result", content=[block("text", text="two"), block("text", text="2")]),
        block("tool_result"),
        {"text": "b"},
        block("text", text="c", cache_control={"type": "ephemeral"}),
    ]
    assert from_messages(user(content)) == (
        Message("user", "a"),
        Message("tool", "one", call_id="1"),
        Message("tool", "two\n2"),
        Message("tool", ""),
        Message("user", "b\nc"),
    )
    assert from_messages(user([])) == (Message("user", ""),)
    assert from_messages(user("a")) == (Message("user", "a"),)


def test_an_assistant_message_is_one_message() -> None:
    content = [
        block("thinking", thinking="first", signature="anything"),
        block("redacted_thinking", data="x"),
        block("thinking", thinking="second"),
        block("text", text="a"),
        block("tool_use", id="1", name="f", input={"a": 1}),
        block("tool_use", name="g"),
        block("tool_use", name="h", input="no JSON"),
    ]
    (message,) = from_messages({"role": "assistant", "content": content})
    assert message == Message(
        "assistant",
        "a",
        reasoning="first\nsecond",
        calls=(ToolCall("1", "f", '{"a":1}'), ToolCall("", "g", "{}"), ToolCall("", "h", "no JSON")),
    )


def test_thinking_that_was_not_shown_says_nothing() -> None:
    content = [block("thinking", thinking="", signature="s"), block("text", text="a")]
    (message,) = from_messages({"role": "assistant", "content": content})
    assert message.reasoning is None


@pytest.mark.parametrize(
    ("system", "text"),
    [(None, None), ("", None), ([], None), ("a", "a"), ([{"text": "a"}, block("any", text="b")], "a\nb")],
)
def test_the_system_prompt(system: Any, text: str | None) -> None:
    *before, last = from_messages(user("x"), system=system)
    assert before == ([] if text is None else [Message("system", text)])
    assert last == Message("user", "x")


@given(st.lists(texts | st.tuples(texts), max_size=6), json_values)
def test_messages_keep_all_text(blocks: list[str | tuple[str]], value: Any) -> None:
    content = [
        block("text", text=item) if isinstance(item, str) else block("tool_result", content=item[0]) for item in blocks
    ]
    called = {"role": "assistant", "content": [block("tool_use", name="f", input={"v": value})]}
    *messages, last = from_messages(user(content), called)
    assert [message.content for message in messages if message.role == "tool"] == [
        item[0] for item in blocks if not isinstance(item, str)
    ]
    said = "\n".join(message.content for message in messages if message.role == "user")
    assert said == "\n".join(item for item in blocks if isinstance(item, str))
    assert last.calls[0].parsed == {"v": value}


def test_tools_of_messages() -> None:
    body = {"messages": [user("x")], "max_tokens": 5, "tools": [{**WEATHER_TOOL, "cache_control": {}}, {"name": "g"}]}
    tools = parse(orjson.dumps(body), JSON, MessagesBody).conversation(FastDialect()).tools
    assert [(tool.name, tool.parameters) for tool in tools] == [("weather", WEATHER_TOOL["input_schema"]), ("g", None)]


# Both


class Plain(FastDialect):
    reasons = False
    switchable = False


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("forced", [False, True])
def test_thinking_is_an_option_only_where_it_can_be_switched(asked: bool | None, forced: bool) -> None:
    given = {"date_string": "x", "enable_thinking": True}
    assert with_thinking(given, asked, forced=forced, dialect=Plain()) == {"date_string": "x"}
    expected = {"date_string": "x"} | ({} if asked is None and not forced else {"enable_thinking": bool(asked)})
    assert with_thinking(given, asked, forced=forced, dialect=FastDialect()) == expected


def test_arguments_with_large_integers() -> None:
    assert arguments_text({"n": 2**80}) == f'{{"n":{2**80}}}'
