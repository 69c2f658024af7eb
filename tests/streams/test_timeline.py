"""Timelines: whatever is pushed and said, the stream is what the template renders, and data is never lost."""

from __future__ import annotations

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.ingest import Batch, Entry
from streams.messages import Message, ToolCall
from streams.timeline import Data, Kept, Timeline, Turn
from tests.engine.fast import DEFAULT_SYSTEM, FastEngine
from tests.streams.chatting import assistant, conversation, say, stream_text, user
from tests.streams.kit import held_by_sessions, held_tokens, managing, settled, until

HEAD = (1, 2)
TEN, ELEVEN, TWELVE = (Entry((token,), 1) for token in (10, 11, 12))
FIRST = Turn((user("a"), assistant("b")), (3, 4))
SECOND = Turn((user("c"), assistant("d")), (5, 6))


def timeline() -> Timeline:
    return Timeline.of(HEAD, [Data((), [TEN]), FIRST, Data((7,), [ELEVEN]), SECOND, Data((7,), [TWELVE])])


def test_tokens_are_head_and_segments() -> None:
    assert timeline().tokens == [1, 2, 10, 3, 4, 7, 11, 5, 6, 7, 12]


def test_the_newest_entries_are_found_across_turns() -> None:
    said = timeline()
    assert said.newest(2) == (ELEVEN, TWELVE)
    assert said.newest(9) == said.data() == (TEN, ELEVEN, TWELVE)
    assert said.newest(2, but=1) == (TEN, ELEVEN)
    assert said.newest(0) == said.newest(1, but=3) == Timeline.of(HEAD).newest(1) == ()


def test_matching_goes_as_far_as_turns_are_repeated_whole() -> None:
    said = timeline()
    history = (*FIRST.messages, *SECOND.messages)
    assert said.kept((*history, user("e"))) == Kept(5, 4, ())
    assert said.kept((*FIRST.messages, user("x"))) == Kept(3, 2, (TWELVE,))
    assert said.kept((user("x"),)) == Kept(1, 0, (ELEVEN, TWELVE))
    assert said.kept(history) == Kept(3, 2, (TWELVE,)), "the last one is asked again"
    assert said.kept(history, all_of_them=True) == Kept(5, 4, ())
    assert said.kept(()) == Kept(1, 0, (ELEVEN, TWELVE))


def test_a_cut_moves_data_behind_what_stays() -> None:
    said = timeline()
    cut = said.cut(Kept(3, 2, (TWELVE,)), HEAD, (), user_next=True)
    assert cut.tokens == [1, 2, 10, 3, 4, 7, 11, 12]
    assert said == timeline(), "the old one serves until the new one is settled"
    other_head = said.cut(Kept(0, 0, said.data()), (9,), (), user_next=True)
    assert other_head.tokens == [9, 10, 11, 12]


def test_a_user_message_opened_for_nothing_is_left_out_before_a_tools_answer() -> None:
    said = Timeline.of(HEAD, [FIRST, Data((7,))])
    assert said.cut(Kept(2, 2, ()), HEAD, (), user_next=False).tokens == [1, 2, 3, 4]
    assert said.cut(Kept(2, 2, ()), HEAD, (), user_next=True).tokens == [1, 2, 3, 4, 7]


def test_data_after_a_turn_that_no_message_was_opened_for() -> None:
    said = Timeline.of(HEAD, [FIRST, SECOND, Data((7,), [TWELVE])])
    assert said.cut(Kept(1, 2, (TWELVE,)), HEAD, (8,), user_next=True).tokens == [1, 2, 3, 4, 8, 12]


def test_echoes() -> None:
    call = ToolCall("1", "f", '{"a":1,"b":[2]}')
    held = Message("assistant", "so ", "hm", (call,), raw="<think>hm</think>so <call>")
    assert assistant("so", ToolCall("2", "f", '{"b": [2], "a": 1}')).echoes(held)
    assert assistant("<think>hm</think>so <call>", call).echoes(held)
    assert assistant("so", call, reasoning="hm").echoes(held)
    assert not assistant("so", call, reasoning="other").echoes(held)
    assert not assistant("so").echoes(held)
    assert not assistant("So", call).echoes(held)
    assert not assistant("so", ToolCall("1", "f", '{"a":1}')).echoes(held)
    assert not user("so").echoes(held)
    assert not user("x ").echoes(user("x"))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 40))
def test_a_batch_splits_between_entries(sizes: list[int], read: int) -> None:
    batch = Batch(tuple(Entry((0,) * size, size) for size in sizes), last=100)
    first, rest = batch.split(read)
    parts = [part for part in (first, rest) if part]
    assert [entry for part in parts for entry in part.entries] == list(batch.entries)
    assert sum(len(entry.tokens) for entry in (first.entries if first else ())) <= read
    assert parts[-1].last == 100
    if first and rest:
        assert first.last == 100 - len(rest.entries)


actions = st.lists(
    st.tuples(st.sampled_from(["push", "go on", "change the last", "start over", "again", "tool"]), st.integers(0, 99)),
    max_size=12,
)


class Model:
    """What the stream should say."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str]] = []

    def text(self) -> str:
        text, in_user = f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n<|im_start|>user\n", True
        for role, said in self.parts:
            if role == "data":
                text += f"{said}\n"
                continue
            if role == "user" and not in_user:
                text += "<|im_start|>user\n"
            if role != "user":
                if text.endswith("<|im_end|>\n<|im_start|>user\n") and role == "tool":
                    text = text.removesuffix("<|im_start|>user\n")
                elif in_user:
                    text += "<|im_end|>\n"
                text += f"<|im_start|>{role}\n"
            text += said
            if role == "assistant":
                text += "<|im_end|>\n<|im_start|>user\n"
            elif role == "tool":
                text += "<|im_end|>\n"
            in_user = role in ("user", "assistant")
        return text

    def cut(self, turns: int) -> None:
        """Keep that many turns, and all data."""
        replies = [index for index, (role, _) in enumerate(self.parts) if role == "assistant"]
        end = replies[turns - 1] + 1 if turns else 0
        while end < len(self.parts) and self.parts[end][0] == "data":
            end += 1
        self.parts = self.parts[:end] + [part for part in self.parts[end:] if part[0] == "data"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(actions)
async def test_a_stream_is_what_the_template_renders(steps: list[tuple[str, int]]) -> None:
    engine = FastEngine()
    async with managing(engine) as manager:
        session, model = await manager.create("s"), Model()
        turns: list[list[Message]] = []
        for step, number in steps:
            if step == "push":
                await manager.push(session, [f"line {number}"])
                await settled(session)
                model.parts.append(("data", f"line {number}"))
                continue
            asked = Message("tool", f"r{number}") if step == "tool" and turns else user(f"q{number}")
            if step == "start over":
                turns.clear()
            elif step == "change the last" and turns:
                turns.pop()
            elif step == "again" and turns:
                asked = turns.pop()[0]
            engine.script.append(f"a{number}")
            history = [message for turn in turns for message in turn]
            model.cut(len(turns))
            reply = await say(manager, session, conversation(*history, asked))
            model.parts += [(asked.role, asked.content), ("assistant", f"a{number}")]
            turns.append([asked, reply.message])
            assert stream_text(engine, session) == model.text()
        session.wake()
        await until(lambda: session.kv_tokens == session.data_end or not session.version)
        if session.version:
            assert held_tokens(session) == session.timeline.tokens
        assert manager.budget.granted == held_by_sessions(manager)
        assert session.version == len(steps)
        await asyncio.sleep(0)
