"""Sizes of well-known models, from their configs alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from streams.errors import ModelError
from streams.models.plan import Cache, Plan
from streams.models.shape import Attention, Shape, State
from tests.streams.models.configs import KNOWN, config, heads


@pytest.mark.parametrize("name", KNOWN)
def test_parameters_and_kv_cache_are_those_published(name: str) -> None:
    known = KNOWN[name]
    shape = Shape.of(known.config)
    assert shape.parameters == known.parameters
    plan = Plan(name=name, shape=shape, weights=0, context=8192, cache=Cache())
    assert plan.token_bytes == known.token_bytes
    assert plan.later_token_bytes == known.later_token_bytes


# Those of which transformers has the code; RWKV-6 it has not.
@pytest.mark.parametrize("name", [name for name in KNOWN if "RWKV" not in name])
def test_parameters_are_those_that_transformers_makes(name: str) -> None:
    """The same config at its full size, on the device that has no memory."""
    given = KNOWN[name].config
    given = given.get("text_config", given)
    made = AutoConfig.for_model(**given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(made)
    model.tie_weights()
    assert Shape.of(made.to_dict()).parameters == sum({id(p): p.numel() for p in model.parameters()}.values())


def test_a_states_size_is_told() -> None:
    (mamba,) = Shape.of(KNOWN["Mamba-1.4B"].config).kept
    assert mamba == State(48, 4096 * (3 + 16))
    (codestral,) = Shape.of(KNOWN["Mamba-Codestral-7B"].config).kept
    assert codestral == State(64, (8192 + 2 * 8 * 128) * 3 + 128 * 64 * 128)
    (rwkv,) = Shape.of(KNOWN["RWKV-6-World-1.6B"].config).kept
    assert rwkv == State(24, 2048 * (2 + 64), 4)


def test_windows_are_found_whether_the_config_lists_the_layers_or_not() -> None:
    listed = config(
        "gemma2", 256, 64, 4, 128, head_dim=32, sliding_window=64,
        layer_types=["sliding_attention", "full_attention"] * 2, **heads(4, 2),
    )  # fmt: skip
    bare = {name: value for name, value in listed.items() if name != "layer_types"}
    assert Shape.of(listed).kept == Shape.of(bare).kept == (Attention(2, 2, 64, 64), Attention(2, 2, 64))


def test_a_window_that_is_switched_off_is_none() -> None:
    qwen = config("qwen2", 256, 64, 2, 128, sliding_window=4096, use_sliding_window=False, **heads(4, 2))
    assert Shape.of(qwen).kept == (Attention(2, 2, 32),)


def test_coheres_windows_are_a_token_longer() -> None:
    command = config("cohere2", 256, 64, 4, 128, sliding_window=64, **heads(4, 2))
    assert Shape.of(command).kept == (Attention(3, 2, 32, 65), Attention(1, 2, 32))


def test_chunks_are_kept_whole() -> None:
    scout = KNOWN["Llama-4-Maverick"].config | {"layer_types": ["chunked_attention", "full_attention"] * 24}
    assert Shape.of(scout).kept == (Attention(48, 8, 256),)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"model_type": "llama"},
        {"model_type": "llama", "hidden_size": "wide", "num_hidden_layers": 2, "vocab_size": 3},
        config("llama", 256, 64, 2, 128, num_attention_heads=0),
        config("qwen3_next", 256, 64, 2, 128, linear_num_value_heads=2, **heads(2)),
        config("gemma3n_text", 256, 64, 2, 128, num_kv_shared_layers=1, **heads(2)),
        config("gpt_oss", 256, 64, 1, 128, layer_types=["strange"], **heads(2)),
    ],
)
def test_a_config_that_does_not_tell_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"cannot be told from its config\.json") as refused:
        Shape.of(bad)
    assert refused.value.param == "model"
    assert "\n" not in refused.value.message
