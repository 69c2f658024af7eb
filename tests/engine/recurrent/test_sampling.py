"""From logits to tokens and text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.base import Sampling
from streams.engine.recurrent.sampling import Chooser, Text

PIECES = [bytes([byte]) for byte in range(256)] + [b"<end>", b"<role>"]
END, ROLE = 256, 257


def text(**options: object) -> Text:
    return Text(Sampling(max_tokens=99, **options), PIECES, frozenset({END, ROLE}), frozenset({END}))  # type: ignore[arg-type]


def say(decoder: Text, tokens: list[int], room: int = 99) -> tuple[str, str | None, int]:
    """The whole text, why it ended, and after how many tokens."""
    shown = ""
    for count, token in enumerate(tokens, 1):
        more, finish = decoder.add(token, room=room)
        shown += more
        if finish is not None:
            return shown, finish, count
    return shown, None, len(tokens)


def test_of_the_most_probable_that_make_up_top_p_one_is_drawn() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    for top_p, likely in ((1.0, {0, 1, 2, 3}), (0.9, {0, 1, 2}), (0.6, {0, 1}), (0.1, {0})):
        chooser = Chooser(Sampling(max_tokens=1, temperature=1.0, top_p=top_p, seed=1))
        assert {chooser.choose(logits)[0] for _ in range(300)} == likely


def test_tokens_are_drawn_as_often_as_they_are_probable() -> None:
    logits = np.log(np.array([0.7, 0.2, 0.1], np.float32))
    for temperature in (1.0, 2.0):
        chooser = Chooser(Sampling(max_tokens=1, temperature=temperature, seed=2))
        drawn = np.bincount([chooser.choose(logits)[0] for _ in range(4000)], minlength=3) / 4000
        wanted = np.array([0.7, 0.2, 0.1]) ** (1 / temperature)
        assert drawn == pytest.approx(wanted / wanted.sum(), abs=0.03)


def test_any_seed_will_do() -> None:
    logits = np.zeros(1000, np.float32)
    drawn = [
        Chooser(Sampling(max_tokens=1, temperature=1.0, seed=seed)).choose(logits)[0]
        for seed in (-1, -1, 1, -(2**63), 2**63 - 1)
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 2


def test_what_is_ruled_out_is_neither_drawn_nor_reported() -> None:
    logits = np.array([1.0, -np.inf, 0.0, -np.inf], np.float32)
    chooser = Chooser(Sampling(max_tokens=1, temperature=5.0, seed=3, top_logprobs=4))
    for _ in range(50):
        token, (reported,) = chooser.choose(logits)
        assert token in (0, 2)
        assert set(reported) == {0, 2}
        assert np.exp(list(reported.values())).sum() == pytest.approx(1)


def test_the_sampled_token_is_reported_beside_the_best() -> None:
    logits = np.zeros(5, np.float32)
    logits[0] = 3
    chooser = Chooser(Sampling(max_tokens=1, temperature=9.0, seed=4, top_logprobs=1))
    assert {frozenset(chooser.choose(logits)[1][0]) for _ in range(200)} == {
        frozenset({0, token}) for token in range(5)
    }


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_sequence(said: str, stops: list[str]) -> None:
    said = said.encode(errors="replace").decode()
    stops = [stop.encode(errors="replace").decode() for stop in stops]
    decoder = text(stop=tuple(stops))
    shown, finish, _ = say(decoder, [*said.encode(), END])
    hits = [said.find(stop) for stop in stops if stop in said]
    assert finish == "stop"
    assert (decoder.stop is not None) == bool(hits)
    if decoder.stop is None:
        assert shown == said
    else:
        # As soon as one is there, the text ends; a longer one that began earlier is not waited for.
        assert (shown + decoder.stop) == said[: len(shown) + len(decoder.stop)]
        assert all(stop not in shown for stop in stops)


def test_control_tokens_are_shown_when_asked_for_except_the_one_that_ends() -> None:
    assert say(text(), [ROLE, 65, END]) == ("A", "stop", 3)
    assert say(text(keep_markup=True), [ROLE, 65, END]) == ("<role>A", "stop", 3)
    assert say(text(ignore_eos=True), [65, END, 66], room=3) == ("AB", "length", 3)


def test_half_a_character_is_held_back_and_replaced_at_the_end() -> None:
    decoder = text()
    assert decoder.add(0xC3, room=9) == ("", None)
    assert decoder.add(0xA4, room=9) == ("ä", None)
    assert decoder.add(0xC3, room=3) == ("\N{REPLACEMENT CHARACTER}", "length")
