from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.models import header


def test_header_says_what_another_reader_says(tiny_gguf: Path) -> None:
    read, expected = header.read(tiny_gguf), GGUFReader(tiny_gguf)
    assert read.architecture == "llama"
    assert read.values["llama.embedding_length"] == 16
    assert read.values["tokenizer.ggml.pre"] == "default"
    assert "tokenizer.ggml.tokens" not in read.values
    assert {
        name: (tensor.shape, tensor.kind, tensor.start, tensor.size) for name, tensor in read.tensors.items()
    } == {
        tensor.name: (
            tuple(reversed(tensor.shape.tolist())), tensor.tensor_type.value, tensor.data_offset, tensor.n_bytes
        )
        for tensor in expected.tensors
    }  # fmt: skip
    norm = next(tensor for tensor in expected.tensors if tensor.name == "output_norm.weight")
    assert header.floats(tiny_gguf, read.tensors["output_norm.weight"]) == norm.data.tolist()


def test_file_that_ends_among_its_weights_says_how_much_is_missing(tiny_gguf: Path, tmp_path: Path) -> None:
    whole = tiny_gguf.read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-100])
    # ggml pads the last tensor, and needs nothing of that.
    with pytest.raises(header.BrokenFile, match=rf"it ends after {len(whole) - 100} of \d+ bytes"):
        header.read(tmp_path / "cut.gguf")


hostile = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)


@hostile
@given(kept=st.floats(0, 0.99))
def test_no_truncated_file_is_read(tiny_gguf: Path, tmp_path: Path, kept: float) -> None:
    whole = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(header.BrokenFile):
        header.read(path)


@hostile
@given(data=st.data())
def test_damaged_header_is_read_or_refused(tiny_gguf: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(tiny_gguf.read_bytes())
    for at in data.draw(st.lists(st.integers(0, 8000), min_size=1, max_size=8)):
        content[at % len(content)] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    with contextlib.suppress(header.BrokenFile):
        header.read(path)
