"""How many parameters a model has, from its config alone. Pure, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

# Two matrices in the feed-forward part of a layer, where others have three.
_UNGATED = {"starcoder2", "gpt_bigcode", "gpt_neox", "phi", "falcon", "bloom", "nemotron", "opt", "gptj", "mpt"}
_RECURRENT = {"mamba", "falcon_mamba", "mamba2"}
_NORMS = {"mamba": 1, "falcon_mamba": 1, "mamba2": 1, "gemma2": 4, "gemma3_text": 4, "cohere": 1, "cohere2": 1}
_NORMS_OF_HEADS = {"gemma3_text", "qwen3", "qwen3_moe"}
_BIASED = {"qwen2", "qwen2_moe"}


def count(config: Config) -> int:
    """Parameters of the model that a complete config describes; what is shared counts once.

    Raises:
        KeyError, TypeError, ValueError: the config lacks something.
    """
    kind, hidden, layers = config["model_type"], config["hidden_size"], config["num_hidden_layers"]
    vocabulary = config["vocab_size"] * hidden * (1 if config["tie_word_embeddings"] else 2)
    if kind == "rwkv6":
        return int(vocabulary + 4 * hidden + layers * _rwkv6(config))
    biases = kind == "starcoder2" and config.get("use_bias", True)
    norm = hidden * (2 if kind == "starcoder2" else 1)
    norms = _NORMS.get(kind, 2) * norm
    total: int = vocabulary + norm
    for index, layer in enumerate(config["layer_types"]):
        total += norms
        if layer == "mamba":
            total += _mamba(config)
        elif layer == "mamba2":
            total += _mamba2(config)
        else:
            total += _mla(config) if "kv_lora_rank" in config else _attention(config, kind, biases)
        if kind not in _RECURRENT:
            total += _experts(config) if _has_experts(config, index) else _feed_forward(config, kind, biases)
    return total


def _attention(config: Config, kind: str, biases: bool) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    total: int = 2 * hidden * queries + 2 * hidden * keys
    if biases or config.get("attention_bias"):
        total += queries + 2 * keys + hidden
    elif kind in _BIASED:
        total += queries + 2 * keys
    return total + (2 * head if kind in _NORMS_OF_HEADS else 0)


def _mla(config: Config) -> int:
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    plain, turned, values = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    lora = config.get("q_lora_rank")
    queries = heads * (plain + turned)
    total: int = hidden * (rank + turned) + rank + rank * heads * (plain + values) + heads * values * hidden
    total += (hidden + 1 + queries) * lora if lora else hidden * queries
    return total


def _feed_forward(config: Config, kind: str, biases: bool) -> int:
    hidden, width = config["hidden_size"], config.get("intermediate_size_mlp") or config["intermediate_size"]
    total: int = (2 if kind in _UNGATED else 3) * hidden * width
    return total + (hidden + width if biases else 0)


def _has_experts(config: Config, index: int) -> bool:
    if not _experts_of(config) or index in (config.get("mlp_only_layers") or ()):
        return False
    chosen = config.get("moe_layers")
    if chosen is not None:
        return index in chosen
    if period := config.get("expert_layer_period"):
        return bool(index % period == config["expert_layer_offset"])
    every = config.get("interleave_moe_layer_step") or config.get("decoder_sparse_step") or config.get("moe_layer_freq")
    return index >= config.get("first_k_dense_replace", 0) and (index + 1) % (every or 1) == 0


def _experts_of(config: Config) -> int:
    names = ("num_local_experts", "n_routed_experts", "num_experts")
    return next((int(config[name]) for name in names if config.get(name)), 0)


def _experts(config: Config) -> int:
    hidden, experts = config["hidden_size"], _experts_of(config)
    width = config.get("moe_intermediate_size") or config["intermediate_size"]
    shared = config.get("shared_expert_intermediate_size") or width * (config.get("n_shared_experts") or 0)
    if config["model_type"] == "llama4_text":
        shared = width
    total: int = experts * 3 * hidden * width + hidden * experts + 3 * hidden * shared
    return total + (hidden if config["model_type"] == "qwen2_moe" else 0)


def _mamba(config: Config) -> int:
    hidden, inner, state = config["hidden_size"], config["inner_size"], config["state_size"]
    rank = config.get("time_step_rank", "auto")
    rank = -(-hidden // 16) if rank == "auto" else rank
    scan = inner * (rank + 2 * state) + rank * inner + inner + inner * state + inner
    total: int = hidden * 2 * inner + inner * (config["conv_kernel"] + 1) + scan + inner * hidden
    return total + (rank + 2 * state if config["model_type"] == "jamba" else 0)


def _mamba2(config: Config) -> int:
    hidden, heads, inner = config["hidden_size"], config["num_heads"], config["inner_size"]
    mixed = inner + 2 * config["n_groups"] * config["state_size"]
    conv = mixed * (config["conv_kernel"] + 1)
    total: int = hidden * (inner + mixed + heads) + conv + 3 * heads + inner + inner * hidden
    return total


def _rwkv6(config: Config) -> int:
    hidden = config["hidden_size"]
    width = config.get("intermediate_size") or hidden * 7 // 2 // 32 * 32
    mixing, decay = (64, 128) if hidden >= 4096 else (32, 64)
    loras = 10 * hidden * mixing + 2 * hidden * decay
    vectors = 16 * hidden
    total: int = 6 * hidden * hidden + 2 * hidden * width + loras + vectors
    return total
