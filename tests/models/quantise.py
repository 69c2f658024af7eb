"""Toys as GGUF files of any level of quantisation, written here and packed by ggml itself."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    RopeScalingType,
    get_tensor_name_map,
)
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerFast

ARCHITECTURES = {"llama": "llama", "phi3": "phi3", "gemma2": "gemma2", "gemma3_text": "gemma3"}
"""llama.cpp's names of the families that are written here, by Hugging Face's."""


@dataclass(frozen=True, slots=True)
class Level:
    """What a level packs matrices into.

    Attributes:
        most: the type of most of them.
        sensitive: of those that suffer most: the values of attention, and what leaves a layer's feed-forward part.
        head: of the one that makes logits.
    """

    most: GGMLQuantizationType
    sensitive: GGMLQuantizationType
    head: GGMLQuantizationType


def _level(most: str, sensitive: str | None = None, head: str | None = None) -> Level:
    return Level(*(GGMLQuantizationType[name or most] for name in (most, sensitive, head)))


FLOAT = _level("F32")
LEVELS: dict[str, Level] = {
    "F16": _level("F16"),
    "Q8_0": _level("Q8_0"),
    "Q6_K": _level("Q6_K"),
    "Q5_K_M": _level("Q5_K", "Q6_K", "Q6_K"),
    "Q4_K_M": _level("Q4_K", "Q6_K", "Q6_K"),
    "Q4_0": _level("Q4_0", "Q4_0", "Q6_K"),
    "Q2_K": _level("Q2_K", "Q3_K", "Q6_K"),
}
"""Best first. Recipes are those of llama.cpp's own tool, which also spares some layers of a larger model."""


@cache
def _ggml() -> ctypes.CDLL:
    """The library in xllamacpp's wheel: nothing else that can be installed packs the K levels."""
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    library = ctypes.CDLL(str(Path(spec.origin).with_name("xllamacpp.abi3.so")), mode=ctypes.RTLD_LOCAL)
    pack = library.ggml_quantize_chunk
    pack.restype = ctypes.c_size_t
    pack.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    return library


def pack(weights: NDArray[np.float32], kind: GGMLQuantizationType) -> NDArray[Any]:
    """A matrix in one of ggml's types, rows first."""
    if kind == GGMLQuantizationType.F32:
        return weights
    if kind == GGMLQuantizationType.F16:
        return weights.astype(np.float16)
    per_block, size = GGML_QUANT_SIZES[kind]
    rows, columns = weights.shape
    assert columns % per_block == 0, f"rows of {columns} cannot be packed in blocks of {per_block}"
    packed = np.empty((rows, columns // per_block * size), np.uint8)
    written = _ggml().ggml_quantize_chunk(int(kind), weights.ctypes.data, packed.ctypes.data, 0, rows, columns, None)
    assert written == packed.nbytes
    return packed


def write(toy: Path, into: Path, level: Level = FLOAT, *, extra: Mapping[str, float] | None = None) -> Path:
    """A toy as a GGUF file, the way llama.cpp's own converter writes its family.

    Args:
        toy: a directory in Hugging Face format.
        into: the file.
        level: how to pack it.
        extra: metadata beside what the converter writes, without the architecture before each key.
    """
    model = AutoModelForCausalLM.from_pretrained(toy, dtype=torch.float32)
    config = model.config
    architecture = ARCHITECTURES[config.model_type]
    writer = GGUFWriter(into, architecture)
    _metadata(writer, config)
    for key, value in (extra or {}).items():
        writer.add_float32(f"{architecture}.{key}", value)
    _vocabulary(writer, AutoTokenizer.from_pretrained(toy), config.vocab_size)
    kinds = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    for name, weights in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        ours = names.get_name(name, try_suffixes=(".weight",))
        assert ours is not None, name
        kind = _kind(ours, level) if weights.dim() > 1 else GGMLQuantizationType.F32
        writer.add_tensor(ours, pack(_arranged(weights, ours, config), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return into


def _kind(name: str, level: Level) -> GGMLQuantizationType:
    if name == "output.weight":
        return level.head
    return level.sensitive if ".attn_v." in name or ".ffn_down." in name else level.most


def _arranged(weights: torch.Tensor, name: str, config: PreTrainedConfig) -> NDArray[np.float32]:
    """Weights in the order that llama.cpp wants."""
    if config.model_type == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
        weights = halves.transpose(1, 2).reshape(weights.shape)
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        weights = weights + 1.0
    return np.ascontiguousarray(weights.float().numpy())


def _metadata(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if config.pad_token_id is not None:
        writer.add_pad_token_id(config.pad_token_id)
    positions = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_rope_freq_base(positions["rope_theta"])
    if config.model_type.startswith("gemma"):
        writer.add_key_length(head)
        writer.add_value_length(head)
    else:
        writer.add_rope_dimension_count(int(head * positions.get("partial_rotary_factor", 1.0)))
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)
    _scaling(writer, positions, head, config.max_position_embeddings)


def _scaling(writer: GGUFWriter, positions: Mapping[str, Any], head: int, context: int) -> None:
    kind = positions["rope_type"]
    trained = positions.get("original_max_position_embeddings")
    if kind == "llama3":
        plain = positions["rope_theta"] ** (-np.arange(0, head, 2) / head)
        writer.add_tensor("rope_freqs.weight", _llama3_factors(plain, positions))
    elif kind == "longrope":
        writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(trained)
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(context / trained) / math.log(trained)))
        for length in ("long", "short"):
            writer.add_tensor(f"rope_factors_{length}.weight", np.array(positions[f"{length}_factor"], np.float32))
    elif kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(kind))
        writer.add_rope_scaling_factor(positions["factor"])
        if trained:
            writer.add_rope_scaling_orig_ctx_len(trained)


def _llama3_factors(frequencies: NDArray[np.float64], positions: Mapping[str, Any]) -> NDArray[np.float32]:
    factor, low, high = (positions[key] for key in ("factor", "low_freq_factor", "high_freq_factor"))
    waves = positions["original_max_position_embeddings"] * frequencies / (2 * np.pi)
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return (1 / (kept + (1 - kept) / factor)).astype(np.float32)


def _vocabulary(writer: GGUFWriter, tokenizer: PreTrainedTokenizerFast, rows: int) -> None:
    pieces = {id_: piece for piece, id_ in tokenizer.get_vocab().items()}
    control = set(tokenizer.all_special_ids)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([pieces[id_] for id_ in range(rows)])
    writer.add_token_types([3 if id_ in control else 1 for id_ in range(rows)])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
