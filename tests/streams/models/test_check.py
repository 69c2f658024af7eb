from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams.errors import ModelError
from streams.models import check
from tests.streams.models.loopback import safetensors
from tests.streams.models.resolving import FILES, write

SHARDS = {f"model-0000{number}-of-00002.safetensors": safetensors(a=10, b=number) for number in (1, 2)}
INDEX = {check.INDEX: json.dumps({"weight_map": dict(zip("ab", SHARDS, strict=True))}).encode()}
SHARDED = {"config.json": b"{}", "tokenizer.model": b"x"} | SHARDS | INDEX


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check.directory(directory)
    message = caught.value.message
    assert str(directory) in message
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "tokenizer.model", "vocab.json", "rwkv_vocab_v20230424.txt"])
def test_complete_directory_passes(tmp_path: Path, tokenizer: str) -> None:
    check.directory(write(tmp_path / "one", FILES | {tokenizer: b"{}"}))
    check.directory(write(tmp_path / "many", SHARDED))


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer: put the model's tokenizer.json or tokenizer.model there"),
        ("model.safetensors", "has no *.safetensors files; get the model's weights in that format"),
    ],
)
def test_missing_file_is_named(tmp_path: Path, lost: str, says: str) -> None:
    write(tmp_path, FILES)
    (tmp_path / lost).unlink()
    assert says in refusal(tmp_path)


def test_weights_of_another_format_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"x"})
    assert "pytorch_model.bin is of another format" in refusal(tmp_path)


def test_lost_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path, SHARDED)
    (tmp_path / [*SHARDS][1]).unlink()
    assert "lacks model-00002-of-00002.safetensors, one of 2 files" in refusal(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 8, 20, -11, -1])
def test_truncated_shard_is_named(tmp_path: Path, kept: int) -> None:
    name, whole = [*SHARDS.items()][1]
    write(tmp_path, SHARDED | {name: whole[:kept]})
    message = refusal(tmp_path)
    assert f"{name} is cut off: it ends after {len(whole[:kept])} " in message
    assert message.endswith("get it again.")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (FILES["model.safetensors"] + b"x", "is damaged"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is not a safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "is damaged"),
        (b"\x02\0\0\0\0\0\0\0{x", "is damaged"),
        (b"\x08\0\0\0\0\0\0\0" + b'{"a": 1}', "is damaged"),
    ],
)
def test_other_content_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    write(tmp_path, FILES | {"model.safetensors": content})
    assert f"model.safetensors {says}" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", check.INDEX])
@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[]", b"\xff", b"[" * 100_000])
def test_damaged_json_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, FILES | {name: content})
    assert f"{name} is damaged" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"{}", b'{"weight_map": []}', b'{"weight_map": {}}'])
def test_empty_index_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, FILES | {check.INDEX: content})
    assert "does not say which weights are in which file" in refusal(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_damaged_shard_passes_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(safetensors(a=10, b=3))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[at] = data.draw(st.integers(0, 255))
    write(tmp_path, FILES | {"model.safetensors": bytes(content)})
    with contextlib.suppress(ModelError):
        check.directory(tmp_path)
