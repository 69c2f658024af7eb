"""Every model family at toy size: the real architecture, random weights, a tokenizer trained on the spot.

A toy is a directory in Hugging Face format that loads in a second. Its weights are drawn with a large deviation: the
most probable token is clearly ahead of the next and depends on the whole prompt. Two implementations that compute the
same thing then agree on every greedy token, and one that loses a token of context does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from tests.models.vocabulary import (
    BASE_WORDS,
    COHERE_WORDS,
    GEMMA_WORDS,
    LLAMA3_WORDS,
    LLAMA4_WORDS,
    MISTRAL_WORDS,
    PHI3_WORDS,
    VOCABULARY,
    Words,
    tokenizer,
)

# Seeds of the weights where the closest of the tests' greedy choices is clear: found by trying a dozen.
SEEDS = {
    "llama-3.1": 0,
    "llama-3.2": 10,
    "llama-4": 0,
    "mistral": 1,
    "mistral-sliding": 8,
    "mixtral": 2,
    "gemma-2": 4,
    "gemma-3": 29,
    "phi-3": 2,
    "command-r": 9,
    "command-r7b": 39,
    "starcoder2": 10,
    "mamba": 5,
    "mamba-2": 8,
}
CONTEXT = 512
HIDDEN = 64
HEAD = 32
"""The smallest head that vLLM's attention on a CPU knows."""

LAYERS = 2
WINDOW = 64
"""Where a family attends to a window only, a short one: the main job passes it."""


@dataclass(frozen=True, slots=True)
class Toy:
    """A family at toy size.

    Attributes:
        config: transformers' name of the configuration class.
        model: transformers' name of the model class.
        fields: what the configuration says beside what all of them say.
        words: control tokens and template.
        deviation: of the weights.
        embedding: of the embedding, where it is smaller: one that is also the head would repeat the last token.
        trained: what the configuration says otherwise than the model was trained, for the reference to have it so.
    """

    config: str
    model: str
    words: Words
    fields: Mapping[str, Any]
    deviation: float = 0.3
    embedding: float | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)


_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": HEAD,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
}
_ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}

TOYS: dict[str, Toy] = {
    "llama-3.1": Toy("LlamaConfig", "LlamaForCausalLM", LLAMA3_WORDS, _SIZES | {"rope_parameters": _ROPE3}),
    "llama-3.2": Toy(
        "LlamaConfig",
        "LlamaForCausalLM",
        LLAMA3_WORDS,
        _SIZES | {"rope_parameters": _ROPE3 | {"factor": 32.0}, "tie_word_embeddings": True},
    ),
    "llama-4": Toy(
        "Llama4TextConfig",
        "Llama4ForCausalLM",
        LLAMA4_WORDS,
        _SIZES
        | {
            "num_hidden_layers": 4,  # of four layers, one is global and without positions
            "intermediate_size_mlp": 2 * HIDDEN,
            "num_local_experts": 4,
            "num_experts_per_tok": 1,
            "interleave_moe_layer_step": 2,
            "attention_chunk_size": WINDOW,
            "use_qk_norm": False,
        },
    ),
    "mistral": Toy("MistralConfig", "MistralForCausalLM", MISTRAL_WORDS, _SIZES | {"sliding_window": None}),
    "mistral-sliding": Toy("MistralConfig", "MistralForCausalLM", MISTRAL_WORDS, _SIZES | {"sliding_window": WINDOW}),
    "mixtral": Toy(
        "MixtralConfig",
        "MixtralForCausalLM",
        MISTRAL_WORDS,
        _SIZES | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    ),
    "gemma-2": Toy(
        "Gemma2Config",
        "Gemma2ForCausalLM",
        GEMMA_WORDS,
        _SIZES | {"sliding_window": WINDOW, "query_pre_attn_scalar": HEAD, "tie_word_embeddings": True},
        embedding=0.05,
    ),
    "gemma-3": Toy(
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        GEMMA_WORDS,
        _SIZES
        | {
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": HEAD,
            "tie_word_embeddings": True,
        },
        embedding=0.05,
    ),
    # Phi-3 has no head_dim of its own: it is hidden_size / heads.
    "phi-3": Toy(
        "Phi3Config",
        "Phi3ForCausalLM",
        PHI3_WORDS,
        _SIZES | {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": None, "pad_token_id": 0},
    ),
    "command-r": Toy(
        "CohereConfig",
        "CohereForCausalLM",
        COHERE_WORDS,
        _SIZES
        | {
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "use_qk_norm": False,
            "tie_word_embeddings": True,
            "logit_scale": 0.25,
        },
    ),
    "command-r7b": Toy(
        "Cohere2Config",
        "Cohere2ForCausalLM",
        COHERE_WORDS,
        _SIZES
        | {
            "num_attention_heads": 2,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "tie_word_embeddings": True,
            "logit_scale": 0.25,
        },
        # Its sliding layers see the token itself and as many before it: vLLM has it so, transformers has one less.
        trained={"sliding_window": WINDOW + 1},
    ),
    "starcoder2": Toy(
        "Starcoder2Config",
        "Starcoder2ForCausalLM",
        BASE_WORDS,
        _SIZES | {"num_attention_heads": 2, "num_key_value_heads": 2, "sliding_window": None},
    ),
    "mamba": Toy(
        "MambaConfig",
        "MambaForCausalLM",
        BASE_WORDS,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "state_size": 16,
            "num_hidden_layers": LAYERS,
            "conv_kernel": 4,
            "expand": 2,
            "time_step_rank": 4,
            "tie_word_embeddings": False,
        },
    ),
    "mamba-2": Toy(
        "Mamba2Config",
        "Mamba2ForCausalLM",
        BASE_WORDS,
        {
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "state_size": 16,
            "num_hidden_layers": LAYERS,
            "conv_kernel": 4,
            "expand": 2,
            "head_dim": HEAD,
            "num_heads": 2 * HIDDEN // HEAD,
            "n_groups": 1,
            "tie_word_embeddings": False,
        },
    ),
}


def build(
    name: str,
    into: Path,
    *,
    fields: Mapping[str, Any] | None = None,
    deviation: float | None = None,
    seed: int | None = None,
) -> Path:
    """Write a toy in float32, complete with tokenizer and chat template.

    Args:
        name: one of :data:`TOYS`.
        into: created if missing.
        fields: what the configuration says otherwise than the toy's.
        deviation: of the weights; None for the toy's own.
        seed: of the weights; None for the toy's own.
    """
    toy = TOYS[name]
    words = tokenizer(toy.words)
    said = {"pad_token_id": None, **toy.fields, **(fields or {})}
    config: PreTrainedConfig = getattr(transformers, toy.config)(
        **said, bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id
    )
    make: Callable[[PreTrainedConfig], PreTrainedModel] = getattr(transformers, toy.model)
    model = make(config).eval()
    deviation = deviation or toy.deviation
    _randomize(model, deviation, torch.Generator().manual_seed(SEEDS.get(name, 0) if seed is None else seed))
    if toy.embedding is not None:
        model.get_input_embeddings().weight.data.mul_(toy.embedding / deviation)
    model.save_pretrained(into)
    words.save_pretrained(into)
    return into


def _randomize(model: PreTrainedModel, deviation: float, generator: torch.Generator) -> None:
    """Give every matrix weights of a known deviation, and move every vector from where the family begins with it.

    Norms of queries and keys grow, or attention would be nearly uniform and the answer the same after every token.
    """
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * deviation
        if parameter.dim() >= 2:
            parameter.data = noise.to(parameter.dtype)
        else:
            parameter.data += noise + (1.0 if name.endswith(("q_norm.weight", "k_norm.weight")) else 0.0)


def load(path: Path, **fields: object) -> PreTrainedModel:
    """A toy as transformers has it, and as these fields of its configuration say."""
    loaded: PreTrainedModel = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        dtype=torch.float32,
        attn_implementation="eager",  # the only one that knows soft caps
        **fields,
    )
    return loaded.eval()


def reference(model: PreTrainedModel) -> Callable[[Sequence[int], Sequence[int]], list[float]]:
    """How far each token of an answer to a prompt is behind what transformers would say there, in logits."""

    def behind(prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        found: list[float] = (logits.max(1).values - chosen).tolist()
        return found

    return behind
