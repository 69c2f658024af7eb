"""Cutting chat templates open for data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import InvalidInput
from streams.template import Template
from tests.engine.fast_dialect import FastDialect
from tests.engine.fast_tokenizer import CONTROL, DEFAULT_SYSTEM, IM_END, IM_START, FastTokenizer

Messages = Sequence[Mapping[str, str]]
TOKENIZER = FastTokenizer()
# What hostile text is made of: control tokens, pieces of them, and anything else.
HOSTILE = st.lists(st.sampled_from([*CONTROL, "<|im_", "start|>", "\n", "user"]) | st.text(max_size=4)).map("".join)


class Templated(FastTokenizer):
    """The tokenizer with another chat template; counts how often it is rendered."""

    def __init__(self, template: Callable[[Messages, Mapping[str, object]], str]) -> None:
        self._template = template
        self.rendered = 0

    def render(self, messages: Messages, options: Mapping[str, object], **_: Any) -> str:
        self.rendered += 1
        return self._template(messages, options)


def cutter(tokenizer: FastTokenizer) -> Template:
    return Template(tokenizer, FastDialect())


def thinking(messages: Messages, options: Mapping[str, object]) -> str:
    """ChatML whose reply opens differently with an option."""
    opening = "" if options.get("enable_thinking", True) else "<think>\n\n</think>\n\n"
    return TOKENIZER.render(messages, {}) + opening


def test_a_frame_is_the_template_around_the_data() -> None:
    frame = cutter(TOKENIZER).frame()
    assert TOKENIZER.decode(frame.head) == f"<|im_start|>system\n{DEFAULT_SYSTEM}<|im_end|>\n<|im_start|>user\n"
    assert TOKENIZER.decode(frame.tail) == "<|im_end|>\n<|im_start|>assistant\n"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), min_size=1), st.text(max_size=9))
def test_head_data_and_tail_are_what_the_template_renders(system: str, data: str) -> None:
    frame = cutter(TOKENIZER).frame(system)
    rendered = TOKENIZER.render([{"role": "system", "content": system}, {"role": "user", "content": data}], {})
    assert bytes_of([*frame.head, *TOKENIZER.encode(data), *frame.tail]) == rendered.encode()


def bytes_of(tokens: list[int]) -> bytes:
    surfaces = {token: surface.encode() for surface, token in CONTROL.items()}
    return b"".join(surfaces.get(token) or bytes([token]) for token in tokens)


@given(HOSTILE)
def test_a_system_prompt_cannot_become_markup(system: str) -> None:
    frame = cutter(TOKENIZER).frame(system)
    control = [token for token in frame.head if token in TOKENIZER.control_ids]
    # The system message is opened and closed once, and the user message opened: nothing else, whatever it says.
    assert control == [IM_START, IM_END, IM_START]
    assert frame.tail == cutter(TOKENIZER).frame().tail


@pytest.mark.parametrize("system", ["\u2402SYSTEM\u2403", "\u2402USER\u2403"])
def test_a_system_prompt_that_looks_like_our_marks_is_a_system_prompt(system: str) -> None:
    head = cutter(TOKENIZER).frame(system).head
    assert bytes_of(list(head)) == f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n".encode()


def test_options_change_the_frame() -> None:
    framer = cutter(Templated(thinking))
    with_thinking, without = framer.frame(), framer.frame(options={"enable_thinking": False})
    assert without.head == with_thinking.head
    assert TOKENIZER.decode(without.tail) == TOKENIZER.decode(with_thinking.tail) + "<think>\n\n</think>\n\n"


def no_system(messages: Messages, options: Mapping[str, object]) -> str:
    return "".join(f"[{m['content']}]" for m in messages if m["role"] == "user")


def no_user(messages: Messages, options: Mapping[str, object]) -> str:
    return "nothing of what it was given"


def doubling(messages: Messages, options: Mapping[str, object]) -> str:
    return "".join(f"[{m['content']}]" for m in messages) * 2


@pytest.mark.parametrize(
    ("template", "system", "param"),
    [
        (no_system, "be brief", "system"),
        (no_user, None, "user"),
        (doubling, None, "user"),
        (doubling, "be brief", "user"),
    ],
)
def test_a_template_without_one_place_for_a_message_is_refused(
    template: Callable[[Messages, Mapping[str, object]], str], system: str | None, param: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        cutter(Templated(template)).frame(system)
    assert refused.value.param == param


def test_a_template_without_a_system_role_serves_sessions_without_one() -> None:
    frame = cutter(Templated(no_system)).frame()
    assert (bytes_of(list(frame.head)), bytes_of(list(frame.tail))) == (b"[", b"]")


def test_a_template_may_put_the_system_prompt_into_the_user_message() -> None:
    def merged(messages: Messages, options: Mapping[str, object]) -> str:
        return "[" + "\n\n".join(m["content"].strip() for m in messages) + "]"

    assert bytes_of(list(cutter(Templated(merged)).frame("be brief").head)) == b"[be brief\n\n"


def test_frames_are_rendered_once() -> None:
    template = Templated(thinking)
    framer = cutter(template)
    for _ in range(3):
        assert framer.frame("a", {"enable_thinking": False}) is framer.frame("a", {"enable_thinking": False})
        assert framer.frame("a", {}) is framer.frame("a")
    assert template.rendered == 2


def test_none_and_the_text_none_are_different_system_prompts() -> None:
    framer = cutter(TOKENIZER)
    assert framer.frame(None) != framer.frame("null")


def test_the_cache_of_frames_is_bounded_and_keeps_what_is_used() -> None:
    template = Templated(thinking)
    framer = cutter(template)
    for number in range(1000):
        framer.frame(f"system {number}")
        framer.frame("used all the time")
    assert template.rendered == 1001
    framer.frame("system 0")
    assert template.rendered == 1002


def test_a_refusal_is_not_remembered_as_a_frame() -> None:
    framer = cutter(Templated(no_system))
    for _ in range(2):
        with pytest.raises(InvalidInput):
            framer.frame("be brief")
