"""What a model says of its size, without its weights: from a directory, a GGUF file's header, or the hub."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from streams.errors import ModelError
from streams.models import check, hub, names, remote
from streams.models.gguf import check_magic
from streams.models.header import BrokenFile, Header, parse, read
from streams.models.locate import DEFAULT_MODEL, Local, Progress, among, default, locate, readable
from streams.models.recurrent import RECURRENT
from streams.models.shape import Shape, State

_CONFIG = "config.json"
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
    "token_shift_count": "token_shifts",
}


@dataclass(frozen=True, slots=True)
class Described:
    """A model whose weights nobody has loaded.

    Attributes:
        name: what clients see.
        shape: its size.
        stored: bytes of its weights as they are published; None where that is not told.
        packed: they are in a GGUF file, and are converted to 16 bits before they are loaded.
        recurrent: they are in a GGUF file, and are loaded from it as they are, by llama.cpp.
    """

    name: str
    shape: Shape
    stored: int | None = None
    packed: bool = False
    recurrent: bool = False


def describe(
    model: str | None, *, progress: Progress, revision: str | None = None, models_dir: Path | None = None
) -> Described:
    """Read what there is to know of a model's size. Of a model on the hub, only config or GGUF header are fetched.

    Args:
        model: what :func:`streams.models.resolve` takes, and means by it.
        progress: called with one sentence where a name leaves open which of several models is taken.
        revision: branch, tag or commit of a model on the hub; None for its main branch.
        models_dir: as for ``resolve``.

    Raises:
        ModelError: there is no such model, or its size cannot be told.
    """
    cache = models_dir and models_dir / "hub"
    if not model:
        return default(lambda name: _hub(name, progress, revision, cache), _shipped, revision)
    found = locate(model, revision=revision, progress=progress)
    if isinstance(found, names.Name):
        return _hub(found, progress, revision, cache)
    with readable(model):
        return _local(found)


def _shipped(file: Path, _: str) -> Described:
    alone = names.Weights(file.stem, (file.name,))
    return replace(_local(Local(file.parent, alone)), name=DEFAULT_MODEL)


def _local(found: Local) -> Described:
    if found.weights is None:
        config = check.config(found.directory)
        stored = sum(weights.stat().st_size for weights in found.directory.glob("*.safetensors"))
        return Described(found.name, Shape.of(config), stored or None)
    found.weights.first(str(found.directory))
    headers = []
    for file in (found.directory / each for each in found.weights.files):
        check_magic(file)
        with _whole(str(file)):
            headers.append(read(file))
    return _gguf(found.name, headers)


def _hub(name: names.Name, progress: Progress, revision: str | None, cache: Path | None) -> Described:
    from huggingface_hub import snapshot_download

    try:
        listed = hub.look(name, progress, revision=revision)
    except hub.Unreachable as away:
        there = hub.snapshot(name, away, revision, cache)
        try:
            found = among(there, name.level, lambda _: None)
            if found.weights is None:
                check.config(there)
        except ModelError as error:
            raise away.refusal(name, revision, begun=True) from error
        return replace(_local(found), name=str(name))
    weights = listed.choice.weights
    if weights is None:
        with hub.failing(name.base):
            snapshot = snapshot_download(name.base, revision=revision, cache_dir=cache, allow_patterns=[_CONFIG])
        stored = sum(size for file, (size, _) in listed.files.items() if file.endswith(".safetensors"))
        return Described(str(name), Shape.of(check.config(Path(snapshot))), stored or None)
    weights.first(name.base)
    headers = []
    for file in weights.files:
        with (
            hub.failing(name.base),
            remote.opened(name.base, listed.commit, file) as source,
            _whole(f"{file} of {name.base}"),
        ):
            headers.append(parse(source, listed.files[file][0]))
    return _gguf(str(name), headers)


@contextmanager
def _whole(file: str) -> Iterator[None]:
    try:
        yield
    except BrokenFile as error:
        raise ModelError(
            f"{file} cannot be read: {error}; get it again, or name a directory in Hugging Face format.", param="model"
        ) from error


def _gguf(name: str, headers: Sequence[Header]) -> Described:
    """What the headers of a model's parts tell, the first part's first."""
    tensors = {tensor: at for header in headers for tensor, at in header.tensors.items()}
    kind = headers[0].architecture
    rows = tensors.get("token_embd.weight")
    config = gguf_config(headers[0].values, rows.shape[0] if rows else 0)
    shape = Shape.of(config, parameters=sum(math.prod(tensor.shape) for tensor in tensors.values()))
    if recurrent := kind in RECURRENT:
        # llama.cpp keeps all states in 32 bits.
        shape = replace(shape, kept=tuple(replace(part, item_size=4) for part in shape.kept if isinstance(part, State)))
    stored = sum(tensor.size for tensor in tensors.values())
    return Described(name, shape, stored, packed=not recurrent, recurrent=recurrent)


def gguf_config(fields: Mapping[str, Any], tokens: int) -> dict[str, Any]:
    """What a GGUF file's header says, by the names of a ``config.json``.

    Args:
        fields: of the header.
        tokens: of the vocabulary.
    """
    kind = fields.get("general.architecture", "")
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
