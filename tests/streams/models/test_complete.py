from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from streams.models.complete import complete


def config(**fields: Any) -> SimpleNamespace:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 4096}
    return SimpleNamespace(**sizes | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}} | fields)


@pytest.mark.parametrize(
    ("architecture", "layers", "hidden", "heads", "head", "expected"),
    [
        pytest.param("gemma2", 42, 3584, 16, 256, 256, id="Gemma 2 9B"),
        pytest.param("gemma2", 46, 4608, 32, 128, 144, id="Gemma 2 27B"),
        pytest.param("gemma3", 34, 2560, 8, 256, 256, id="Gemma 3 4B"),
        pytest.param("gemma3", 62, 5376, 32, 128, 168, id="Gemma 3 27B"),
    ],
)
def test_queries_of_gemma_are_scaled_as_in_training(
    architecture: str, layers: int, hidden: int, heads: int, head: int, expected: int
) -> None:
    made = config(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads, head_dim=head)
    complete(made, architecture, {}, {})
    assert made.query_pre_attn_scalar == expected


def test_caps_of_logits_are_those_of_the_file() -> None:
    made = config(head_dim=32, attn_logit_softcapping=50.0, final_logit_softcapping=30.0)
    complete(made, "gemma2", {"gemma2.attn_logit_softcapping": 20.0, "llama.final_logit_softcapping": 1.0}, {})
    assert (made.attn_logit_softcapping, made.final_logit_softcapping) == (20.0, 30.0)


@pytest.mark.parametrize(("window", "expected"), [(0, None), (2047, 2047), (4096, None), (262144, None)])
def test_window_of_phi_is_kept_where_it_is_one(window: int, expected: int | None) -> None:
    made = config(sliding_window=None)
    complete(made, "phi3", {"phi3.attention.sliding_window": window}, {})
    assert made.sliding_window == expected


def test_layers_that_see_a_window_are_not_scaled() -> None:
    made = config(
        head_dim=32,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    said = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0, "gemma3.rope.freq_base_swa": 2e4}
    complete(made, "gemma3", said, {})
    assert made.rope_parameters == {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
    }


def test_model_without_positions_is_left_alone() -> None:
    made = SimpleNamespace(hidden_size=64)
    complete(made, "mamba", {"mamba.rope.scaling.factor": 8.0}, {})
    assert vars(made) == {"hidden_size": 64}
