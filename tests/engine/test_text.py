"""The text of an answer is the same whether its whole prompt is decoded or as much as matters, and that is little."""

from __future__ import annotations

import pytest
import tokenizers
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers.decoders import DecodeStream

from streams.engine.base import Sampling
from streams.engine.vllm import VllmEngine
from streams.engine.vllm_text import ending
from tests.engine.test_engine import ask
from tests.engine.test_tokenizer import BYTE_LEVEL, SENTENCEPIECE

BACKENDS = [BYTE_LEVEL.template.backend_tokenizer, SENTENCEPIECE.template.backend_tokenizer]

texts = st.text(st.sampled_from("ab \n\N{GRINNING FACE}\N{LATIN SMALL LETTER E WITH ACUTE}"), max_size=60)


def spoken(backend: tokenizers.Tokenizer, prompt: list[int], answer: list[int]) -> list[str | None]:
    stream = DecodeStream(ids=prompt, skip_special_tokens=True)
    return [stream.step(backend, token) for token in answer]


@given(st.sampled_from(BACKENDS), texts, st.integers(0, 40), texts)
def test_an_answer_reads_the_same(backend: tokenizers.Tokenizer, prompt: str, times: int, answer: str) -> None:
    ids = backend.encode(f"b{prompt * times}", add_special_tokens=False).ids
    following = backend.encode(answer, add_special_tokens=False).ids
    assume(ids)
    end = ending(backend, ids, skip_special_tokens=True)
    assert list(end) == ids[len(ids) - len(end) :]
    assert spoken(backend, list(end), following) == spoken(backend, ids, following)


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_a_long_prompt_little_is_decoded(backend: tokenizers.Tokenizer) -> None:
    ids = backend.encode("a b " * 5000, add_special_tokens=False).ids
    assert len(ending(backend, ids, skip_special_tokens=True)) <= 32


def test_what_ends_in_the_middle_of_a_character_is_decoded_from_before_it() -> None:
    backend = SENTENCEPIECE.template.backend_tokenizer
    ids = backend.encode("b" + "\N{GRINNING FACE}" * 20, add_special_tokens=False).ids
    assert len(ending(backend, ids, skip_special_tokens=True)) == 32, "whole characters"
    cut = ids[:-2]
    assert list(ending(backend, cut, skip_special_tokens=True)) == cut


async def test_the_engine_speaks_as_it_did(vllm_engine: VllmEngine) -> None:
    tokenizer = vllm_engine.tokenizer
    text = "The caf\N{LATIN SMALL LETTER E WITH ACUTE} is warm. " * 40
    prompt = tokenizer.encode(f"{text}A row of faces: \N{GRINNING FACE}")
    answer = await ask(vllm_engine, prompt, Sampling(max_tokens=12, ignore_eos=True))
    pieces = spoken(tokenizer.template.backend_tokenizer, prompt, answer.tokens)
    assert answer.text == "".join(piece or "" for piece in pieces)
