"""What is wrong with a model's directory, told before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from streams.errors import ModelError, short

INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "*vocab*.txt",
    "tekken.json",
    "*.tiktoken",
)
"""Files that a tokenizer is loaded from; any one will do."""

_OTHER_WEIGHTS = ("*.bin", "*.pth", "*.pt")
# What the format's own reader allows.
_HEADER_MAX = 100_000_000
_LENGTH_BYTES = 8


def directory(path: Path) -> None:
    """Refuse a directory that is no complete model in Hugging Face format, by what it says of itself.

    Raises:
        ModelError: a file is missing, cut off or no JSON. The message names it.
    """
    config(path)
    for shard in _shards(path):
        _whole(shard)
    if not any(file for pattern in TOKENIZERS for file in path.glob(pattern)):
        raise _error(
            f"{path} has no tokenizer: put the model's tokenizer.json or tokenizer.model there, from where its weights"
            " come from."
        )
    if (path / "tokenizer.json").is_file():
        _object(path / "tokenizer.json")


def config(path: Path) -> dict[str, Any]:
    """The ``config.json`` of a directory.

    Raises:
        ModelError: there is none, or it is no JSON object.
    """
    if not (path / "config.json").is_file():
        raise _error(
            f"{path} is not a model: it has no config.json; name a directory in Hugging Face format or a .gguf file."
        )
    return _object(path / "config.json")


def _shards(path: Path) -> list[Path]:
    """The files with the weights: those that the index names, or all there are."""
    if not (path / INDEX).is_file():
        shards = sorted(path.glob("*.safetensors"))
        if not shards:
            others = sorted(file.name for pattern in _OTHER_WEIGHTS for file in path.glob(pattern))
            found = f", and {short(others[0])} is of another format" if others else ""
            raise _error(f"{path} has no *.safetensors files{found}; get the model's weights in that format.")
        return shards
    weight_map = _object(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise _error(f"{path / INDEX} does not say which weights are in which file; get it again.")
    shards = [path / str(name) for name in sorted({str(name) for name in weight_map.values()})]
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise _error(f"{path} lacks {short(missing[0])}, one of {len(shards)} files with weights; get it as well.")
    return shards


def _whole(shard: Path) -> None:
    """Refuse a safetensors file whose size is not the one that its header says, without reading its weights."""
    size = shard.stat().st_size
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _HEADER_MAX:
            raise _error(f"{shard} is not a safetensors file, whatever its name says; get it again.")
        header = file.read(length)
    if len(header) < length or size < _LENGTH_BYTES:
        raise _cut_off(shard, f"{size} bytes, within its header")
    try:
        ends = [int(entry["data_offsets"][1]) for name, entry in json.loads(header).items() if name != "__metadata__"]
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise _error(f"{shard} is damaged: its header cannot be read; get it again.") from error
    whole = _LENGTH_BYTES + length + max(ends, default=0)
    if size < whole:
        raise _cut_off(shard, f"{size} of {whole} bytes")
    if size > whole:
        raise _error(f"{shard} is damaged: it has {size} bytes where its header tells of {whole}; get it again.")


def _cut_off(shard: Path, where: str) -> ModelError:
    return _error(f"{shard} is cut off: it ends after {where}; get it again.")


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _error(f"{file} is damaged: it is no valid JSON; get it again.") from error
    if not isinstance(content, dict):
        raise _error(f"{file} is damaged: it is no JSON object; get it again.")
    return content


def _error(message: str) -> ModelError:
    return ModelError(message, param="model")
