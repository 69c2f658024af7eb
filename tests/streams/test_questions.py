"""Questions over a stream: bounded, over a version, and before ingest."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import Sampling
from streams.errors import (
    ContextLengthExceeded,
    Overloaded,
)
from streams.manager import Manager
from tests.engine.fast import FastEngine
from tests.streams.kit import held_tokens, managing, settled, text_of, until


async def test_a_stream_leaves_room_for_a_question(engine: FastEngine) -> None:
    engine = FastEngine(context=512)
    async with managing(engine) as manager:
        session = await manager.create("s")
        full = engine.facts.context - manager.room.questions - len(session.frame.head) - 1
        await manager.push(session, ["x" * full])
        await settled(session)
        with pytest.raises(ContextLengthExceeded):
            await manager.push(session, ["x"])
        question = manager.questions.encode("q" * (manager.room.questions - len(session.frame.tail) - 1))
        assert (await manager.questions.prompt(session, question)).room == 1


async def test_questions_are_bounded_per_session_and_in_total(engine: FastEngine) -> None:
    async with managing(engine, questions=3, questions_per_session=2) as manager:
        one, other = await manager.create(), await manager.create()
        ask = manager.questions.foreground
        with ask(one), ask(one):
            with pytest.raises(Overloaded), ask(one):
                pass
            with ask(other):
                with pytest.raises(Overloaded) as refused, ask(other):
                    pass
                assert refused.value.retry_after is not None
            assert (one.running, other.running, manager.questions.running) == (2, 0, 2)
        assert (one.running, manager.questions.running) == (0, 0)


async def test_an_answer_is_over_the_version_it_was_asked_at(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    await manager.push(session, ["a"])
    await settled(session)
    prompt = await manager.questions.prompt(session, manager.questions.encode("trend?"))
    await manager.push(session, ["b"])
    await settled(session)
    reply = manager.questions.reply(prompt, Sampling(max_tokens=32))
    async for _ in reply.deltas():
        pass
    assert prompt.version == reply.version == 1
    assert engine.tokenizer.decode(prompt.tokens).endswith("user\na\ntrend?<|im_end|>\n<|im_start|>assistant\n")
    assert reply.finish_reason == "stop"
    # Asking leaves nothing behind.
    assert held_tokens(session) == session.timeline.tokens
    assert text_of(engine, session) == "a\nb\n"


async def test_ingest_waits_while_a_question_has_no_first_token(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s")
    engine.generate_gate.clear()
    prompt = await manager.questions.prompt(session, manager.questions.encode("trend?"))
    first = asyncio.create_task(anext(manager.questions.reply(prompt, Sampling(max_tokens=4)).deltas()))
    await until(lambda: manager.questions.waiting)
    await manager.push(session, ["a"])
    await until(lambda: session.tokens)
    assert [call.kind for call in engine.calls] == ["generate"]
    engine.generate_gate.set()
    await first
    await settled(session)
    assert manager.questions.waiting == 0
