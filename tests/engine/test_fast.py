"""The in-process engine speaks as its own dialect reads, so that tests of what is above can rely on it."""

from __future__ import annotations

import json

from streams.engine.base import Delta, Priority, ReplyReader, Sampling
from streams.messages import Conversation, Message, Shape, Tool
from tests.engine.fast import FastEngine

TOOL = Tool("look", "Look it up", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})


async def reply(
    engine: FastEngine, shape: Shape, *, thinking: bool = False, limit: int = 400
) -> tuple[Delta, ReplyReader]:
    conversation = Conversation((Message("user", "Hi"),), (TOOL,), {"enable_thinking": thinking})
    rendered = engine.tokenizer.render([{"role": "user", "content": "Hi"}], conversation.options)
    prompt = engine.tokenizer.encode_markup(rendered)
    reader = engine.dialect.reader(conversation, shape, prompt)
    sampling = Sampling(limit, constraint=reader.constraint, keep_markup=reader.keep_markup)
    said = Delta()
    async for piece in engine.generate(prompt, sampling, Priority.FOREGROUND):
        news = reader.read(piece)
        said = Delta(said.reasoning + news.reasoning, said.content + news.content)
        if reader.call_ended:
            break
    return said, reader


async def test_it_says_what_the_script_says_in_the_foreground() -> None:
    engine = FastEngine()
    engine.script += ["Grüße!", "Bye"]
    assert [(await reply(engine, Shape()))[0].content for _ in range(2)] == ["Grüße!", "Bye"]
    assert (await reply(engine, Shape()))[0].content not in ("Grüße!", "Bye")


async def test_a_forced_call_is_made_with_or_without_thoughts() -> None:
    for thinking in (False, True):
        said, reader = await reply(FastEngine(), Shape("named", "look"), thinking=thinking)
        (call,) = reader.calls()
        assert (call.name, json.loads(call.arguments)) == ("look", {"n": 0})
        assert (said.content, bool(said.reasoning), reader.thinking) == ("", thinking, False)
        assert (reader.reasoning_tokens > 0) is thinking


async def test_a_schema_is_obeyed() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    assert json.loads((await reply(FastEngine(), Shape(schema=schema)))[0].content) == {"a": "x"}


async def test_calls_are_taken_out_of_the_text_and_what_is_around_them() -> None:
    engine = FastEngine()
    call = '<tool_call>\n{"name": "look", "arguments": {"n": %d}}\n</tool_call>'
    engine.script.append(f"Let me see. <\n{call % 1} and {call % 2}.")
    said, reader = await reply(engine, Shape())
    assert said.content == "Let me see. <"
    assert [call.arguments for call in reader.calls()] == ['{"n":1}', '{"n":2}']
    engine.script.append(f"{call % 1}{call % 2}")
    said, reader = await reply(engine, Shape(parallel=False))
    assert reader.call_ended


async def test_a_malformed_call_is_text() -> None:
    engine = FastEngine()
    engine.script.append("Hm. <tool_call>\nlook(3)")
    said, reader = await reply(engine, Shape())
    assert (said.content, reader.calls(), reader.malformed) == ("Hm. <tool_call>\nlook(3)", (), True)


async def test_thoughts_are_told_apart_unless_they_shall_not_be() -> None:
    engine = FastEngine()
    text = "Hm, < 3?\n</think>\n\nThree."
    engine.script += [text, text]
    said, reader = await reply(engine, Shape(), thinking=True)
    assert (said, reader.reasoning_tokens) == (Delta("Hm, < 3?", "Three."), len("Hm, < 3?\n</think>"))
    said, _ = await reply(engine, Shape(separate_reasoning=False), thinking=True)
    assert said == Delta("", text)


async def test_a_reply_cut_off_in_its_thoughts_has_only_these() -> None:
    engine = FastEngine()
    engine.script.append("Let me think about it.\n</think>\n\nThree.")
    said, reader = await reply(engine, Shape(), thinking=True, limit=12)
    assert (said, reader.thinking) == (Delta("Let me think"), True)
