"""The World vocabulary."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.recurrent.world import WorldTokenizer
from streams.errors import InvalidInput

WORDS = [
    b"the",
    b"ther",
    b"there",
    b" the",
    b"\n\n",
    b"User",
    b"Use",
    b"'s",
    b"\"'",
    b"\\",
    "温度".encode(),
    b"\xe6\xb8",
]
PIECES = ["<s>", *(repr(piece)[2:-1] for piece in [*(bytes([byte]) for byte in range(256)), *WORDS]), "[PAD269]"]
BLANK = 1 + 256 + WORDS.index(b"\n\n")


@pytest.fixture(scope="module")
def tokenizer() -> WorldTokenizer:
    return WorldTokenizer(PIECES, [0, BLANK])


def test_the_longest_piece_goes_first(tokenizer: WorldTokenizer) -> None:
    for said, pieces in (
        ("thereof", [b"there", b"o", b"f"]),
        ("therthe", [b"ther", b"the"]),
        (" there", [b" the", b"r", b"e"]),
        ("温度 温", ["温度".encode(), b" ", b"\xe6\xb8", b"\xa9"]),
        ("it's \"'\\", [b"i", b"t", b"'s", b" ", b"\"'", b"\\"]),
    ):
        assert [tokenizer.token_bytes(token) for token in tokenizer.encode(said)] == pieces


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_all_text_comes_back_and_none_of_it_is_control(said: str) -> None:
    tokenizer = WorldTokenizer(PIECES, [0, BLANK])
    tokens = tokenizer.encode(said)
    assert b"".join(map(tokenizer.token_bytes, tokens)).decode() == said
    assert 0 not in tokens
    assert max(tokens, default=0) < tokenizer.size - 1  # padding is never said
    assert tokenizer.guard(said, "mark") == said


def test_half_a_surrogate_pair_is_refused(tokenizer: WorldTokenizer) -> None:
    for refusing in (tokenizer.encode, lambda text: tokenizer.guard(text, "mark")):
        with pytest.raises(InvalidInput):
            refusing("\ud800")


def test_conversations_are_plain_text(tokenizer: WorldTokenizer) -> None:
    said = [{"role": "user", "content": "Hi"}]
    assert tokenizer.render(said, {}) == "User: Hi\n\nAssistant:"
    assert tokenizer.end_ids == {0, BLANK}
    with pytest.raises(InvalidInput):
        tokenizer.render(said, {"enable_thinking": True})
