"""What a GGUF file says of its model and transformers leaves out of the configuration that it makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streams.models import rope

# Families whose file does not say by what queries are scaled, and the layers of the one size where it is not the head.
_GEMMA = {"gemma2": 46, "gemma3": 62}


def complete(
    config: Any, architecture: str, metadata: Mapping[str, Any], factors: Mapping[str, Sequence[float]]
) -> None:
    """Add to a configuration, in place.

    Args:
        config: transformers' configuration of a model read from a GGUF file.
        architecture: llama.cpp's name of the family.
        metadata: of the file, with the architecture before each key of the model's.
        factors: tensors of factors of positions that the file has, by name.

    Raises:
        UnknownScaling: positions are scaled in a way that has no name among Hugging Face's.
    """
    said = {key.removeprefix(f"{architecture}."): value for key, value in metadata.items()}
    if getattr(config, "rope_parameters", None):
        _positions(config, said, factors)
    if architecture in _GEMMA:
        heads = config.hidden_size // config.num_attention_heads
        largest = config.num_hidden_layers == _GEMMA[architecture]
        config.query_pre_attn_scalar = heads if largest else config.head_dim
        for cap in ("attn_logit_softcapping", "final_logit_softcapping"):
            if cap in said:
                setattr(config, cap, said[cap])
    if architecture == "phi3" and 0 < said.get("attention.sliding_window", 0) < config.max_position_embeddings:
        config.sliding_window = said["attention.sliding_window"]


def _positions(config: Any, said: Mapping[str, Any], factors: Mapping[str, Sequence[float]]) -> None:
    # Where layers differ, scaling is that of the layers that see everything.
    layers = config.rope_parameters
    scaled = layers.get("full_attention", layers)
    if scaled.get("rope_type") == "proportional":
        return  # Gemma 4: its tensor of factors says the same as transformers' own defaults
    local = layers.get("sliding_attention")
    if local is not None and "rope.freq_base_swa" in said:
        local["rope_theta"] = said["rope.freq_base_swa"]
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    turned = said.get("rope.dimension_count", head)
    if turned < head and turned != int(head * scaled.get("partial_rotary_factor", 1.0)):
        scaled["partial_rotary_factor"] = turned / head
    found = rope.scaling(said, factors, theta=scaled["rope_theta"], context=config.max_position_embeddings)
    scaled.update(found)
    if found.get("rope_type") == "longrope":
        # Phi-3 reads it from here, and overwrites what the parameters say.
        config.original_max_position_embeddings = found["original_max_position_embeddings"]
