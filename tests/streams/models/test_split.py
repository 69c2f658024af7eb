from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import load_file

from streams.models import header
from streams.models.convert import convert
from streams.models.split import joined

NAME = "tiny-{:05}-of-00002.gguf"


@pytest.fixture
def parts(tiny_gguf: Path, tmp_path: Path) -> list[Path]:
    """The tiny model in two files, as llama.cpp splits one: all metadata in the first, a few weights in each."""
    paths = [tmp_path / NAME.format(number) for number in (1, 2)]
    whole = GGUFReader(tiny_gguf)
    half = len(whole.tensors) // 2
    for number, (path, tensors) in enumerate(zip(paths, (whole.tensors[:half], whole.tensors[half:]), strict=True)):
        writer = GGUFWriter(path, "llama")
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(whole.tensors))
        if number == 0:
            for key, field in whole.fields.items():
                if not key.startswith(("GGUF.", "general.architecture")):
                    inner = field.types[-1] if len(field.types) > 1 else None
                    writer.add_key_value(key, field.contents(), field.types[0], inner)
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_model_in_one_file_is_used_where_it_is(tiny_gguf: Path, tmp_path: Path) -> None:
    assert joined(tiny_gguf, tmp_path) == tiny_gguf
    assert list(tmp_path.iterdir()) == []


def test_parts_are_put_together(parts: list[Path], tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    whole, one = header.read(tiny_gguf), header.read(joined(parts[0], tmp_path / "into"))
    assert one.values == whole.values
    assert {(name, tensor.shape, tensor.kind) for name, tensor in one.tensors.items()} == {
        (name, tensor.shape, tensor.kind) for name, tensor in whole.tensors.items()
    }


def test_model_in_parts_converts_to_the_same(parts: list[Path], tiny_gguf: Path, tmp_path: Path) -> None:
    results = [tmp_path / "whole", tmp_path / "one"]
    for source, result in zip((tiny_gguf, parts[0]), results, strict=True):
        result.mkdir()
        convert(source, result)
    assert {path.name for path in results[1].iterdir()} == {path.name for path in results[0].iterdir()}
    whole, one = (load_file(path / "model.safetensors") for path in results)
    assert whole.keys() == one.keys()
    assert all((whole[name] == one[name]).all() for name in whole)


def test_missing_part_is_named(parts: list[Path], tmp_path: Path) -> None:
    parts[1].unlink()
    with pytest.raises(header.BrokenFile, match=r"tiny-00002-of-00002\.gguf is not beside it"):
        joined(parts[0], tmp_path)
