"""Weights in 16 bits are multiplied as their widened copies would be."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.model_executor.layers import utils

from streams.engine import _narrow
from streams.engine.narrow import linear, narrow_weights, narrowed

SHORT = (torch.bfloat16, torch.float16)
USABLE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def weights(outputs: int, inputs: int, dtype: torch.dtype, seed: int = 1) -> torch.Tensor:
    """Float32 weights of a checkpoint in ``dtype``."""
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)).to(dtype).float()


def test_it_is_used_where_the_processor_has_what_it_takes() -> None:
    assert _narrow.usable() is USABLE
    assert (narrowed(weights(8, 16, torch.bfloat16)) is not None) is USABLE


@given(
    tokens=st.integers(0, 200),
    outputs=st.integers(1, 24).map(lambda n: n * _narrow.OUTPUTS),
    inputs=st.integers(1, 24).map(lambda n: n * _narrow.INPUTS),
    dtype=st.sampled_from(SHORT),
    seed=st.integers(0, 2**32),
)
def test_products_are_those_of_the_widened_weights(
    tokens: int, outputs: int, inputs: int, dtype: torch.dtype, seed: int
) -> None:
    wide = weights(outputs, inputs, dtype, seed)
    x, bias = torch.randn(tokens, inputs), torch.randn(outputs)
    weight = narrowed(wide)
    assert weight is not None
    assert weight.dtype in SHORT
    expected = torch.nn.functional.linear(x.double(), wide.double(), bias.double())
    torch.testing.assert_close(linear(weight, x, None, bias).double(), expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("dtype", SHORT)
def test_a_tokens_product_is_the_same_beside_any_others(dtype: torch.dtype) -> None:
    weight = narrowed(weights(64, 576, dtype))
    assert weight is not None
    x = torch.randn(150, 576)
    together = linear(weight, x, None, None)
    for at in (0, 1, 95, 96, 97, 149):
        assert torch.equal(linear(weight, x[at : at + 1], None, None)[0], together[at])


def test_inputs_may_have_any_shape_and_stride() -> None:
    weight = narrowed(wide := weights(8, 16, torch.float16))
    assert weight is not None
    x = torch.randn(16, 5, 3).permute(2, 1, 0)
    torch.testing.assert_close(linear(weight, x, None, None), torch.nn.functional.linear(x, wide))


@pytest.mark.parametrize(
    "wide",
    [
        torch.full((8, 16), 1 / 3),
        weights(8, 16, torch.float16) + 1e6,
        torch.randn(8, 16).bfloat16(),
        weights(6, 16, torch.bfloat16),
        weights(8, 12, torch.bfloat16),
        torch.zeros(2, 8, 16),
    ],
    ids=["needs 32 bits", "too large", "is in 16 bits", "odd outputs", "odd inputs", "experts"],
)
def test_what_would_lose_something_or_has_no_kernel_is_left_as_it_is(wide: torch.Tensor) -> None:
    assert narrowed(wide) is None


def test_addresses_are_used_for_shapes_that_it_can_multiply_only() -> None:
    with pytest.raises(ValueError, match="multiples"):
        _narrow.multiply(0, 0, 0, 1, 3, 8, True)


@pytest.mark.parametrize("remove", [True, False])
def test_layers_that_are_loaded_inside_keep_short_weights(remove: bool) -> None:
    layer = torch.nn.Linear(16, 8)
    layer.weight = torch.nn.Parameter(wide := weights(8, 16, torch.bfloat16))
    before = utils.dispatch_cpu_unquantized_gemm
    with narrow_weights():
        utils.dispatch_cpu_unquantized_gemm(layer, remove)
    assert utils.dispatch_cpu_unquantized_gemm is before
    assert layer.weight.numel() == (0 if remove else wide.numel())
    x = torch.randn(2, 3, 16)
    product = utils.cpu_unquantized_gemm(layer, x, layer.weight, layer.bias)
    torch.testing.assert_close(product, torch.nn.functional.linear(x, wide, layer.bias))


def test_other_layers_are_vllms() -> None:
    layer = torch.nn.Linear(16, 8)
    with narrow_weights():
        utils.dispatch_cpu_unquantized_gemm(layer, False)
    x = torch.randn(3, 16)
    product = utils.cpu_unquantized_gemm(layer, x, layer.weight, layer.bias)
    torch.testing.assert_close(product, torch.nn.functional.linear(x, layer.weight, layer.bias))
