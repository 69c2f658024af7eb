"""Configs of well-known models, as far as their size follows from them, and their published parameter counts."""

from __future__ import annotations

from typing import Any, NamedTuple


class Known(NamedTuple):
    """A model everybody knows.

    Attributes:
        config: its ``config.json``.
        parameters: as its weights have them.
        token_bytes: KV cache of one token in 16 bits, where no window has been passed.
        later_token_bytes: the same beyond all windows.
    """

    config: dict[str, Any]
    parameters: int
    token_bytes: int
    later_token_bytes: int


def config(kind: str, vocabulary: int, hidden: int, layers: int, width: int = 0, **others: Any) -> dict[str, Any]:
    names = {"vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers}
    return {"model_type": kind, **names, **({"intermediate_size": width} if width else {}), **others}


def heads(queries: int, keys: int | None = None) -> dict[str, int]:
    return {"num_attention_heads": queries, "num_key_value_heads": queries if keys is None else keys}


KIB = 1024
KNOWN = {
    "Llama-3.1-8B": Known(
        config("llama", 128256, 4096, 32, 14336, **heads(32, 8)), 8_030_261_248, 128 * KIB, 128 * KIB
    ),
    "Llama-3.1-70B": Known(
        config("llama", 128256, 8192, 80, 28672, **heads(64, 8)), 70_553_706_496, 320 * KIB, 320 * KIB
    ),
    "Llama-3.2-1B": Known(
        config("llama", 128256, 2048, 16, 8192, **heads(32, 8), head_dim=64, tie_word_embeddings=True),
        1_235_814_400,
        32 * KIB,
        32 * KIB,
    ),
    "Llama-2-13B": Known(config("llama", 32000, 5120, 40, 13824, **heads(40)), 13_015_864_320, 800 * KIB, 800 * KIB),
    "CodeLlama-34B": Known(
        config("llama", 32000, 8192, 48, 22016, **heads(64, 8)), 33_743_970_304, 192 * KIB, 192 * KIB
    ),
    "Llama-4-Maverick": Known(
        config(
            "llama4_text",
            202048,
            5120,
            48,
            8192,
            intermediate_size_mlp=16384,
            num_local_experts=128,
            interleave_moe_layer_step=2,
            attention_chunk_size=8192,
            **heads(40, 8),
        ),
        400_711_848_960,
        192 * KIB,
        192 * KIB,
    ),
    "Mistral-7B-v0.3": Known(
        config("mistral", 32768, 4096, 32, 14336, sliding_window=None, **heads(32, 8)),
        7_248_023_552,
        128 * KIB,
        128 * KIB,
    ),
    "Mistral-7B-v0.1": Known(
        config("mistral", 32000, 4096, 32, 14336, sliding_window=4096, **heads(32, 8)), 7_241_732_096, 128 * KIB, 0
    ),
    "Mixtral-8x7B": Known(
        config("mixtral", 32000, 4096, 32, 14336, num_local_experts=8, **heads(32, 8)),
        46_702_792_704,
        128 * KIB,
        128 * KIB,
    ),
    "Gemma-2-9B": Known(
        config("gemma2", 256000, 3584, 42, 14336, head_dim=256, **heads(16, 8)), 9_241_705_984, 336 * KIB, 168 * KIB
    ),
    # Its config leaves out heads and vocabulary. 29 layers have a window, in groups of five, and five do not.
    "Gemma-3-4B": Known(
        {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                "hidden_size": 2560,
                "num_hidden_layers": 34,
                "intermediate_size": 10240,
                "sliding_window": 1024,
            },
        },
        3_880_263_168,
        140 * KIB,
        20 * KIB,
    ),
    "Phi-3-mini": Known(
        config("phi3", 32064, 3072, 32, 8192, sliding_window=None, **heads(32)), 3_821_079_552, 384 * KIB, 384 * KIB
    ),
    "Command-R-35B": Known(
        config("cohere", 256000, 8192, 40, 22528, **heads(64)), 34_980_831_232, 1280 * KIB, 1280 * KIB
    ),
    "StarCoder2-15B": Known(
        config("starcoder2", 49152, 6144, 40, 24576, **heads(48, 4)), 15_655_899_136, 80 * KIB, 80 * KIB
    ),
    "DeepSeek-V2-Lite": Known(
        config(
            "deepseek_v2",
            102400,
            2048,
            27,
            10944,
            moe_intermediate_size=1408,
            n_routed_experts=64,
            n_shared_experts=2,
            first_k_dense_replace=1,
            moe_layer_freq=1,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            **heads(16),
        ),
        15_706_484_224,
        27 * 576 * 2,
        27 * 576 * 2,
    ),
    "Mamba-1.4B": Known(config("mamba", 50280, 2048, 48, time_step_rank=128), 1_372_178_432, 0, 0),
    "Mamba-Codestral-7B": Known(
        config("mamba2", 32768, 4096, 64, num_heads=128, head_dim=64, n_groups=8, state_size=128), 7_285_403_648, 0, 0
    ),
    "RWKV-6-World-1.6B": Known(config("rwkv6", 65536, 2048, 24), 1_599_873_024, 0, 0),
    "Jamba-v0.1": Known(
        config(
            "jamba",
            65536,
            4096,
            32,
            14336,
            attn_layer_period=8,
            attn_layer_offset=4,
            expert_layer_period=2,
            expert_layer_offset=1,
            num_experts=16,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_expand=2,
            mamba_dt_rank=256,
            **heads(32, 8),
        ),
        51_570_323_328,
        16 * KIB,
        16 * KIB,
    ),
    "Bamba-9B": Known(
        config(
            "bamba",
            128256,
            4096,
            32,
            14336,
            attn_layer_indices=[9, 18, 27],
            mamba_d_state=128,
            mamba_d_conv=4,
            mamba_expand=2,
            mamba_n_heads=128,
            mamba_n_groups=1,
            **heads(32, 8),
        ),
        9_780_235_392,
        12 * KIB,
        12 * KIB,
    ),
}
