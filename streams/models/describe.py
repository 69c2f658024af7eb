"""What a model says of its size, without its weights: from a directory, a GGUF file's header, or the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streams.errors import ModelError, short
from streams.models.hub import REACH_TIMEOUT_S
from streams.models.shape import Shape

_CONFIG, _INDEX = "config.json", "model.safetensors.index.json"
# GGUF's names of architectures, where they are not those of the configs.
_GGUF_TYPES = {
    "command-r": "cohere",
    "deepseek2": "deepseek_v2",
    "gemma3": "gemma3_text",
    "llama4": "llama4_text",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
}
_GGUF_NAMES = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_count": "num_local_experts",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.sliding_window": "sliding_window",
    "ssm.conv_kernel": "conv_kernel",
    "ssm.state_size": "state_size",
    "ssm.inner_size": "intermediate_size",
    "ssm.group_count": "n_groups",
    "ssm.time_step_rank": "time_step_rank",
    "wkv.head_size": "head_size",
}


@dataclass(frozen=True, slots=True)
class Described:
    """A model whose weights nobody has loaded.

    Attributes:
        name: as it was named.
        shape: its size.
        stored: bytes of its weights as they are published; None where that is not told.
        packed: they are in a GGUF file, and are converted to 16 bits before they are loaded.
    """

    name: str
    shape: Shape
    stored: int | None = None
    packed: bool = False


def describe(model: str) -> Described:
    """Read what there is to know of a model's size. Of a model on the hub, only the config is fetched.

    Args:
        model: a directory in Hugging Face format, a ``.gguf`` file, or a name on the hub as ``org/name``.

    Raises:
        ModelError: there is no such model, or its size cannot be told.
    """
    try:
        path = Path(model).expanduser()
        directory, file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # RuntimeError is how expanduser says that there is no such user
        raise _error(f"The model {short(model)!r} cannot be read: {short(error)}.") from error
    if directory:
        return _directory(path)
    return _file(path) if file else _hub(model)


def _directory(path: Path) -> Described:
    file = path / _CONFIG
    if not file.is_file():
        raise _error(f"{path} is not a model: it has no config.json; name a directory that has, or a .gguf file.")
    stored = sum(weights.stat().st_size for weights in path.glob("*.safetensors"))
    return Described(path.resolve().name, Shape.of(_read(file)), stored or None)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _error(f"{file} cannot be read: {error}.") from error
    if not isinstance(config, dict):
        raise _error(f"{file} is not a model's config: it must be a JSON object.")
    return config


def _hub(model: str) -> Described:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    reached = True
    try:
        # A download has no time limit for metadata, so this request decides whether the hub is there.
        HfApi().model_info(model, timeout=REACH_TIMEOUT_S)
    except (HFValidationError, RepositoryNotFoundError, GatedRepoError) as error:
        raise _error(
            f"{short(model)!r} is no directory or .gguf file here and no model on the hub; check the name, or set"
            " HF_TOKEN if it is private or gated."
        ) from error
    # The client's network errors have no base class of its own, and their module changed between its versions.
    except Exception:
        reached = False
    try:
        snapshot = Path(snapshot_download(model, allow_patterns=[_CONFIG, _INDEX], local_files_only=not reached))
        config = _read(snapshot / _CONFIG)
    except Exception as error:
        where = "there is none on the hub" if reached else "the hub cannot be reached and its cache has none"
        raise _error(
            f"The size of {short(model)!r} cannot be told without its config.json, and {where}; name another model, or"
            " a directory or .gguf file."
        ) from error
    stored = None
    # Only models in several files have one; without it there is the number of parameters.
    if (snapshot / _INDEX).is_file():
        total = (_read(snapshot / _INDEX).get("metadata") or {}).get("total_size")
        stored = int(total) if isinstance(total, int | float) else None
    return Described(model, Shape.of(config), stored)


def _file(path: Path) -> Described:
    if path.suffix != ".gguf":
        raise _error(f"{path} is a file but not a .gguf file; name one, or a directory in Hugging Face format.")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("tokenizer.")}
        tokens = reader.get_field("tokenizer.ggml.tokens")
        config = gguf_config(fields, 0 if tokens is None else len(tokens.data))
    # Whatever a broken file makes the parser raise.
    except Exception as error:
        raise _error(f"{path} cannot be read: {short(error)}; get it again.") from error
    config["tie_word_embeddings"] = all(tensor.name != "output.weight" for tensor in reader.tensors)
    counted = sum(int(tensor.n_elements) for tensor in reader.tensors)
    stored = sum(int(tensor.n_bytes) for tensor in reader.tensors)
    return Described(path.stem, replace(Shape.of(config), parameters=counted), stored, packed=True)


def gguf_config(fields: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """What a GGUF file's header says, by the names of a ``config.json``.

    Args:
        fields: of the header.
        tokens: of the vocabulary.
    """
    kind = fields["general.architecture"]
    own = {name.removeprefix(f"{kind}."): value for name, value in fields.items() if name.startswith(f"{kind}.")}
    config = {ours: own[theirs] for theirs, ours in _GGUF_NAMES.items() if theirs in own}
    config.setdefault("vocab_size", tokens)
    config["model_type"] = _GGUF_TYPES.get(kind, kind)
    if kind == "mamba2":
        # What Mamba-1 calls the rank is the number of heads here.
        config["num_heads"] = config.pop("time_step_rank")
        config["head_dim"] = config["intermediate_size"] // config["num_heads"]
    if "attention.kv_lora_rank" in own:
        config["kv_lora_rank"] = own["attention.kv_lora_rank"]
        config["qk_rope_head_dim"] = own["rope.dimension_count"]
        config["qk_nope_head_dim"] = own.get("attention.key_length_mla", own["attention.key_length"])
        config["v_head_dim"] = own.get("attention.value_length_mla", own["attention.value_length"])
    return config


def _error(message: str) -> ModelError:
    return ModelError(message, param="model")
