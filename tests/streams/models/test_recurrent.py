"""What a GGUF file says of itself first."""

from __future__ import annotations

from pathlib import Path

import pytest

from streams.models import gguf, recurrent
from tests.models import rwkv_toy
from tests.streams.models.conftest import write_tiny_gguf


def test_the_architecture_is_read_and_a_recurrent_file_stays_as_it_is(tmp_path: Path) -> None:
    llama, rwkv = tmp_path / "llama.gguf", rwkv_toy.build(tmp_path / "rwkv.gguf")
    write_tiny_gguf(llama)
    assert recurrent.architecture(llama) == "llama"
    assert recurrent.architecture(rwkv) == "rwkv6"
    assert gguf.convert(rwkv, "identity", tmp_path / "models", print) == rwkv
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GGUF",
        b"GGML" + bytes(100),
        b"GGUF" + bytes(20) + (1 << 62).to_bytes(8, "little") + bytes(100),
        b"GGUF" + bytes(20) + (20).to_bytes(8, "little") + b"general.architecture" + (4).to_bytes(4, "little"),
        b"GGUF" + bytes(20) + (20).to_bytes(8, "little") + b"general.architecture" + (8).to_bytes(4, "little"),
    ],
)
def test_a_file_that_says_nothing_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert recurrent.architecture(tmp_path / "x") == ""
