from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from streams.models.rope import FACTORS, LONG, SHORT, UnknownScaling, scaling


def factors_of_llama(size: int, theta: float, factor: float, trained: int) -> list[float]:
    """As llama.cpp's converter computes them, and stores them: in 32 bits."""
    factors = []
    for length in 2 * math.pi * theta ** (np.arange(size) / size):
        if length < trained / 4:
            factors.append(1.0)
        elif length > trained:
            factors.append(factor)
        else:
            smooth = (trained / length - 1) / 3
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return [float(value) for value in np.array(factors, np.float32)]


@pytest.mark.parametrize(
    ("size", "factor", "trained"),
    [
        pytest.param(64, 8.0, 8192, id="Llama 3.1 8B and 70B"),
        pytest.param(32, 32.0, 8192, id="Llama 3.2 1B"),
        pytest.param(64, 32.0, 8192, id="Llama 3.2 3B"),
    ],
)
def test_scaling_of_llama_is_recovered_from_its_factors(size: int, factor: float, trained: int) -> None:
    factors = {FACTORS: factors_of_llama(size, 500000.0, factor, trained)}
    assert scaling({}, factors, theta=500000.0, context=131072) == {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": trained,
    }


@given(
    size=st.integers(8, 128),
    theta=st.floats(1e4, 1e7),
    factor=st.floats(1.5, 128, width=32),
    trained=st.integers(128, 1 << 20),
)
def test_whatever_is_recovered_has_the_same_factors(size: int, theta: float, factor: float, trained: int) -> None:
    assume(2 * math.pi * theta ** ((size - 1) / size) > trained)  # or no wave is slowed by the whole factor
    factors = factors_of_llama(size, theta, factor, trained)
    try:
        found = scaling({}, {FACTORS: factors}, theta=theta, context=1 << 20)
    except UnknownScaling:
        # Only where nothing lies between kept and slowed is the trained length open, and then that of Llama is tried.
        assert {*factors} <= {1.0, factor}
        return
    if found:
        assert factors_of_llama(size, theta, found["factor"], found["original_max_position_embeddings"]) == (
            pytest.approx(factors, rel=2e-3)
        )
    else:
        assert set(factors) == {1.0}


def test_factors_of_one_scale_nothing() -> None:
    assert scaling({}, {FACTORS: [1.0] * 32}, theta=1e4, context=4096) == {}


@pytest.mark.parametrize("factors", [[1.0, 2.0, 1.0, 8.0], [8.0, 4.0, 2.0, 1.0], [1.0, 1.0, 1e30, 1e30]])
def test_factors_of_another_kind_are_refused(factors: list[float]) -> None:
    with pytest.raises(UnknownScaling, match="not those of any Llama"):
        scaling({}, {FACTORS: factors}, theta=500000.0, context=131072)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({}, {}),
        ({"rope.scaling.factor": 0.0}, {}),
        ({"rope.scaling.factor": 1.0}, {}),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {}),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"rope.scaling.factor": 8.0}, {"rope_type": "linear", "factor": 8.0}),
        ({"rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096},
        ),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 1024,
                "rope.scaling.yarn_beta_fast": 16.0,
                "rope.scaling.yarn_beta_slow": 2.0,
                "rope.scaling.yarn_attn_factor": 1.5,
            },
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 1024,
                "beta_fast": 16.0,
                "beta_slow": 2.0,
                "attention_factor": 1.5,
            },
        ),
    ],
)
def test_metadata_is_taken_over(metadata: dict[str, Any], expected: dict[str, Any]) -> None:
    assert scaling(metadata, {}, theta=1e4, context=4096) == expected


def test_long_and_short_factors_are_taken_over() -> None:
    found = scaling(
        {"rope.scaling.original_context_length": 4096},
        {SHORT: [1.0, 1.5], LONG: [2.0, 60.0]},
        theta=1e4,
        context=131072,
    )
    assert found == {
        "rope_type": "longrope",
        "short_factor": [1.0, 1.5],
        "long_factor": [2.0, 60.0],
        "original_max_position_embeddings": 4096,
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {"rope.scaling.type": "ntk", "rope.scaling.factor": 4.0},
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.yarn_log_multiplier": 0.1},
    ],
)
def test_scaling_that_has_no_name_elsewhere_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(UnknownScaling, match="cannot be taken over"):
        scaling(metadata, {}, theta=1e4, context=4096)
