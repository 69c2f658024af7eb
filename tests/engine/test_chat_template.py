"""Templates that are not the model's own: the operator's, and the plain one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.chat_template import MAX_BYTES, template_text
from streams.engine.dialect import VllmDialect
from streams.engine.recurrent.dialect import PlainDialect
from streams.engine.recurrent.world import WorldTokenizer
from streams.engine.tokenizer import HfTokenizer
from streams.messages import Conversation, Message
from streams.template import Template
from tests.engine.models import CHATML, QWEN3, byte_level
from tests.engine.recurrent.test_world import BLANK, PIECES
from tests.models.vocabulary import BASE_WORDS, GEMMA_WORDS, tokenizer

BASE = HfTokenizer(tokenizer(BASE_WORDS))
GEMMA = HfTokenizer(tokenizer(replace(GEMMA_WORDS, template=None)))
WORLD = WorldTokenizer(PIECES, [0, BLANK])
SAID = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "tool", "content": "21.5"},
]
PLAIN = "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: 21.5\n\n"


@pytest.mark.parametrize("base", [BASE, WORLD], ids=["bpe", "world"])
def test_without_a_template_messages_stand_after_the_names_of_their_roles(base: HfTokenizer | WorldTokenizer) -> None:
    assert base.template_source == "plain"
    assert base.render(SAID, {}, generation=False) == PLAIN
    assert base.render(SAID, {}) == PLAIN + "Assistant:"


def test_the_plain_template_begins_with_the_models_first_token_once() -> None:
    tokens = GEMMA.encode_markup(GEMMA.render(SAID, {}))
    assert tokens[0] == GEMMA.template.bos_token_id
    assert not set(tokens[1:]) & GEMMA.control_ids


@pytest.mark.parametrize("base", [BASE, GEMMA, WORLD], ids=["bpe", "bos", "world"])
def test_streams_are_cut_from_the_plain_template(base: HfTokenizer | WorldTokenizer) -> None:
    template = Template(base, PlainDialect())

    @given(st.lists(st.text(alphabet="aü:\n ", max_size=8), min_size=3, max_size=3))
    def check(texts: list[str]) -> None:
        data, reply, question = (f"{text}." for text in texts)
        frame = template.frame("Be brief.")
        asked = Conversation(
            (
                Message("system", "Be brief."),
                Message("user", data),
                Message("assistant", reply),
                Message("user", question),
            )
        )
        pieces = (
            frame.head,
            base.encode(data),
            frame.tail,
            base.encode(f" {reply.strip()}"),
            template.resume(asked, 3, in_user=False),
        )
        # Pieces are tokenized apart, so it is the text that has to agree.
        assert spelled(base, *pieces) == base.render(
            [{"role": message.role, "content": message.content} for message in asked.messages], {}
        ).replace(f"User: {data.strip()}", f"User: {data}", 1)

    check()


def test_what_a_reply_has_begun_of_the_next_message_is_not_repeated() -> None:
    template = Template(BASE, PlainDialect())
    following = template.opening(Conversation((Message("user", "Hi"),)))
    reply = BASE.encode(" Hello")
    assert template.after_reply(reply, following) == following
    for begun in range(1, len(following)):
        left = template.after_reply([*reply, *following[:begun]], following)
        assert (*following[:begun], *left) == following


def spelled(base: HfTokenizer | WorldTokenizer, *pieces: list[int] | tuple[int, ...]) -> str:
    return b"".join(base.token_bytes(token) for piece in pieces for token in piece).decode()


def test_an_override_goes_before_the_models_own() -> None:
    words = tokenizer(GEMMA_WORDS)
    assert HfTokenizer(words).template_source == "model"
    own = HfTokenizer(words, chat_template="{{ bos_token }}{% for m in messages %}<{{ m.content }}>{% endfor %}")
    assert own.template_source == "override"
    assert own.render(SAID[1:3], {}) == "<bos><Hi><Hello>"
    world = WorldTokenizer(PIECES, [0], "{{ bos_token + 'Q: ' + messages[0].content }}")
    assert (world.template_source, world.render(SAID[1:], {})) == ("override", "Q: Hi")


def test_what_a_model_can_do_is_told_from_the_override() -> None:
    """The vocabulary of a model that thinks, with the template of another."""
    vocabulary = byte_level(template=QWEN3, added=("<think>", "</think>")).template
    assert VllmDialect.load(HfTokenizer(vocabulary)).reasons
    assert not VllmDialect.load(HfTokenizer(vocabulary, chat_template=CHATML)).reasons
    again = VllmDialect.load(HfTokenizer(vocabulary, chat_template=QWEN3))
    assert (again.reasons, again.switchable, again.takes_tools) == (True, True, True)


def test_a_template_is_given_as_text_or_as_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(CHATML)
    assert template_text(CHATML) == template_text(str(file)) == CHATML
    refuses = "{{ raise_exception('I want more than that') }}"
    assert template_text(refuses) == refuses


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("no/such.jinja", r"names no file .* \(No such file or directory\); give the path of a Jinja template, or its"),
        (".", "Is a directory"),
        ("~nobody-has-this-name/x.jinja", "names no file"),
        ("a\0b", "names no file"),
        ("{% for m in messages %}{{ m.content }}", r"is no Jinja template \(line 1: .*endfor"),
        ("{{ m.content", "is no Jinja template"),
        ("{% unknown %}", "unknown tag"),
    ],
)
def test_what_is_no_template_is_refused_with_the_way_out(given: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        template_text(given)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b" \n", "empty"),
        (b"\xff\xfe", "UTF-8"),
        (b"x" * (MAX_BYTES + 1), "at most"),
        (b"{% if %}", "no Jinja template"),
    ],
)
def test_what_is_no_templates_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "bad.jinja"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        template_text(str(file))
