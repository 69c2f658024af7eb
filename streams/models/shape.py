"""What a model's config says of its size: parameters, and what each layer keeps of a sequence. Pure, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streams.errors import ModelError
from streams.models.parameters import count

Config = Mapping[str, Any]

# What a config leaves out because the library that wrote it knows the default.
_DEFAULTS: dict[str, Config] = {
    "gemma2": {"head_dim": 256, "sliding_window": 4096},
    "gemma3_text": {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
    },
    "cohere2": {"sliding_window": 4096, "sliding_window_pattern": 4},
    "llama4_text": {"head_dim": 128, "interleave_moe_layer_step": 1, "num_local_experts": 16},
    "mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2},
    "mamba2": {"state_size": 128, "conv_kernel": 4, "expand": 2, "n_groups": 8, "num_heads": 128, "head_dim": 64},
}
_TIED = {"gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "starcoder2", "mamba"}
_RWKV = ("rwkv6", "rwkv7", "arwkv7", "rwkv6qwen2")
_ONE_KIND = {"mamba": "mamba", "falcon_mamba": "mamba", "mamba2": "mamba2"} | dict.fromkeys(_RWKV, "rwkv")
# Models of attention and recurrent layers: their names for what Mamba's configs call otherwise.
_MIXED = {
    "jamba": {"mamba_d_state": "state_size", "mamba_d_conv": "conv_kernel", "mamba_dt_rank": "time_step_rank"},
    "bamba": {
        "mamba_d_state": "state_size",
        "mamba_d_conv": "conv_kernel",
        "mamba_n_groups": "n_groups",
        "mamba_n_heads": "num_heads",
    },
}
# Beginnings of names that only configs with layers of other kinds have.
_STRANGE = ("mamba", "ssm", "linear_", "num_kv_shared", "layers_block_type", "hybrid")
# The engine keeps all of a sequence in chunked layers too.
_ATTENTION = {
    "full_attention": "full_attention",
    "chunked_attention": "full_attention",
    "sliding_attention": "sliding_attention",
}
_ITEM_SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclass(frozen=True, slots=True)
class Attention:
    """Layers that keep something of each token.

    Attributes:
        layers: how many.
        heads: of keys, and as many of values; 0 where both are kept as one vector for all heads (MLA).
        size: numbers kept per head and token, keys and values together; per token for MLA.
        window: tokens that the layer sees; None for all of them.
    """

    layers: int
    heads: int
    size: int
    window: int | None = None

    @property
    def numbers(self) -> int:
        """Numbers kept per token by one layer."""
        return max(1, self.heads) * self.size


@dataclass(frozen=True, slots=True)
class State:
    """Layers that keep a state of one size, however long the sequence.

    Attributes:
        layers: how many.
        numbers: kept by one layer.
        item_size: bytes of each; None for that of the model's number format.
    """

    layers: int
    numbers: int
    item_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's size.

    Attributes:
        model_type: the config's name for the architecture.
        parameters: numbers in its weights; of the language model alone, where there is more.
        context: tokens it was trained for; None for no limit.
        layers, hidden: how many, and the width between them.
        heads, kv_heads: of attention; 0 for a model without.
        kept: what its layers keep of a sequence.
        item_size: bytes of a number, as its weights were published.
    """

    model_type: str
    parameters: int
    context: int | None
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    kept: tuple[Attention | State, ...]
    item_size: int = 2

    @classmethod
    def of(cls, config: Config, *, parameters: int | None = None) -> Shape:
        """The shape of the model that a ``config.json`` describes.

        Args:
            config: its content.
            parameters: as they were counted; None to tell from the config.

        Raises:
            ModelError: it describes no model of a known kind.
        """
        try:
            return cls._of(complete(config), parameters)
        except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
            kind = config.get("model_type") or "of no named type"
            raise ModelError(
                f"The size of this model ({kind}) cannot be told from its config.json ({error}).",
                param="model",
            ) from error

    @classmethod
    def _of(cls, config: Config, parameters: int | None) -> Shape:
        kept = _kept(config)
        attention = any(isinstance(part, Attention) for part in kept)
        context = config.get("max_position_embeddings")
        return cls(
            model_type=config["model_type"],
            parameters=count(config) if parameters is None else parameters,
            context=context if attention else None,
            layers=config["num_hidden_layers"],
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"] if attention else 0,
            kv_heads=_kv_heads(config) if attention else 0,
            kept=kept,
            item_size=_ITEM_SIZES.get(str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch."), 2),
        )


def complete(config: Config) -> Config:
    """The language model's part of a config, with what it leaves out."""
    text = config.get("text_config") or config.get("llm_config")
    if isinstance(text, Mapping):
        outer = {name: config[name] for name in ("dtype", "torch_dtype", "tie_word_embeddings") if name in config}
        config = {**outer, **text}
    kind = config["model_type"]
    given = {name: value for name, value in config.items() if value is not None}
    full = {"tie_word_embeddings": kind in _TIED, **_DEFAULTS.get(kind, {}), **given}
    if kind in _MIXED:
        full |= {ours: full[theirs] for theirs, ours in _MIXED[kind].items()}
        full["inner_size"] = full["mamba_expand"] * full["hidden_size"]
    elif kind == "mamba2":
        full["inner_size"] = full["num_heads"] * full["head_dim"]
    elif kind in ("mamba", "falcon_mamba"):
        full["inner_size"] = full.get("intermediate_size") or full["expand"] * full["hidden_size"]
    elif strange := sorted(name for name in full if name.startswith(_STRANGE)):
        raise ValueError(f"its {strange[0]} is not known here")
    full["layer_types"] = layer_types(full)
    return full


def _kv_heads(config: Config) -> int:
    heads: int = config.get("num_key_value_heads") or config["num_attention_heads"]
    return heads


def _kept(config: Config) -> tuple[Attention | State, ...]:
    kinds: Counter[str] = Counter(config["layer_types"])
    return tuple(_keep(config, kind, layers) for kind, layers in kinds.items())


def _keep(config: Config, kind: str, layers: int) -> Attention | State:
    if kind == "rwkv":
        return State(layers, config["hidden_size"] * (config.get("token_shifts", 2) + _rwkv_head(config)), 4)
    if kind == "mamba":
        return State(layers, config["inner_size"] * (config["conv_kernel"] - 1 + config["state_size"]))
    if kind == "mamba2":
        inner = config["inner_size"]
        mixed = inner + 2 * config["n_groups"] * config["state_size"]
        return State(layers, mixed * (config["conv_kernel"] - 1) + inner * config["state_size"])
    if "kv_lora_rank" in config:
        return Attention(layers, 0, config["kv_lora_rank"] + config["qk_rope_head_dim"])
    head: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if kind == "full_attention":
        return Attention(layers, _kv_heads(config), 2 * head)
    # Cohere's layers see one token more than the config says.
    window = config["sliding_window"] + (config["model_type"] == "cohere2")
    return Attention(layers, _kv_heads(config), 2 * head, window)


def _rwkv_head(config: Config) -> int:
    head: int = config.get("head_size") or 64
    return head


def layer_types(config: Config) -> list[str]:
    """What each layer is: mamba, mamba2, rwkv, full_attention or sliding_attention."""
    layers, kind = config["num_hidden_layers"], config["model_type"]
    if kind in _ONE_KIND:
        return [_ONE_KIND[kind]] * layers
    if kind == "jamba":
        period, offset = config["attn_layer_period"], config["attn_layer_offset"]
        return ["full_attention" if index % period == offset else "mamba" for index in range(layers)]
    if kind == "bamba":
        attention = config.get("attn_layer_indices") or ()
        return ["full_attention" if index in attention else "mamba2" for index in range(layers)]
    if types := config.get("layer_types"):
        return [_ATTENTION[name] for name in types]
    if not config.get("sliding_window") or config.get("use_sliding_window") is False:
        return ["full_attention"] * layers
    # Every so many layers one sees everything; in other models all have the window.
    every = {"gemma2": 2}.get(kind) or config.get("sliding_window_pattern")
    if every is None:
        return ["sliding_attention"] * layers
    return ["sliding_attention" if (index + 1) % every else "full_attention" for index in range(layers)]
