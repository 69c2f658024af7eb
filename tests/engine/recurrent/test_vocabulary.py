"""Tokenizers out of GGUF files."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from streams.engine.recurrent.vocabulary import tokenizer_of
from streams.engine.recurrent.world import WorldTokenizer
from streams.errors import ModelError
from tests.engine.recurrent.test_world import BLANK, PIECES
from tests.models import rwkv_toy

TEXT = "The sensor reads 21.5 degrees, isn't it?\n\n  Übergrößen 温度 <|im_end|>"


def test_a_byte_level_vocabulary_is_the_one_that_was_trained(tmp_path: Path) -> None:
    tokenizer, trained = tokenizer_of(rwkv_toy.build(tmp_path / "toy.gguf")), rwkv_toy.words()
    assert tokenizer.size == rwkv_toy.VOCABULARY
    assert tokenizer.encode_markup(TEXT) == trained.encode(TEXT).ids
    assert set(tokenizer.encode(TEXT)).isdisjoint(range(3))
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode(TEXT))).decode() == TEXT
    assert tokenizer.hidden_ids >= {0, 2}
    assert tokenizer.eos_id == 2
    assert tokenizer.render([{"role": "user", "content": "Hi"}], {}).startswith("<|im_start|>user\nHi<|im_end|>")


def test_a_file_without_a_template_has_the_plain_one_and_either_can_be_overridden(tmp_path: Path) -> None:
    base = rwkv_toy.build(tmp_path / "base.gguf", template=None)
    said = [{"role": "user", "content": "Hi"}]
    tokenizer = tokenizer_of(base)
    assert tokenizer.template_source == "plain"
    # The toy's vocabulary names a first token.
    assert tokenizer.render(said, {}) == "<|endoftext|>User: Hi\n\nAssistant:"
    for file in (base, write(tmp_path / "world.gguf", "rwkv")):
        tokenizer = tokenizer_of(file, "Q: {{ messages[0].content }}")
        assert (tokenizer.template_source, tokenizer.render(said, {})) == ("override", "Q: Hi")


def write(path: Path, model: str, **more: str) -> Path:
    out = gguf.GGUFWriter(path, "rwkv6")
    out.add_tokenizer_model(model)
    out.add_token_list(PIECES)
    out.add_eos_token_id(0)
    out.add_eot_token_id(BLANK)
    for key, value in more.items():
        out.add_string(f"tokenizer.ggml.{key}", value)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def test_the_world_vocabulary(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(write(tmp_path / "world.gguf", "rwkv"))
    assert isinstance(tokenizer, WorldTokenizer)
    assert tokenizer.end_ids == {0, BLANK}
    assert [tokenizer.token_bytes(token) for token in tokenizer.encode("there 温")] == [
        b"there",
        b" ",
        b"\xe6\xb8",
        b"\xa9",
    ]


def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"of the kind llama \(spm\)"):
        tokenizer_of(write(tmp_path / "llama.gguf", "llama", pre="spm"))
