"""Weights stay in the 16 bits of their checkpoint on a CPU that computes in float32.

Such a CPU has no instructions for 16 bits, so vLLM widens the weights when it loads them, and every step reads twice as
much memory as the checkpoint has. Here they are widened in registers while they are multiplied (``narrow.c``). Widening
is exact, so only the order of sums differs from vLLM's own. Imported by vLLM in the engine's own process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from vllm.model_executor.layers import utils

from streams.engine import _narrow


@contextmanager
def narrow_weights() -> Iterator[None]:
    """Inside, linear layers that are loaded keep their weights in 16 bits, where that loses nothing."""
    dispatch = utils.dispatch_cpu_unquantized_gemm

    def narrowing(layer: torch.nn.Module, remove_weight: bool) -> None:
        weight = narrowed(layer.weight)
        if weight is None:
            dispatch(layer, remove_weight)
            return
        layer.cpu_linear = partial(linear, weight)
        if remove_weight:
            layer.weight = torch.nn.Parameter(layer.weight.new_empty(0), requires_grad=False)

    utils.dispatch_cpu_unquantized_gemm = narrowing
    try:
        yield
    finally:
        utils.dispatch_cpu_unquantized_gemm = dispatch


def narrowed(weight: torch.Tensor) -> torch.Tensor | None:
    """The same weights in 16 bits; None where they do not fit exactly, or are not what the kernel multiplies.

    Args:
        weight: of shape [outputs, inputs].
    """
    if not _narrow.usable() or weight.dtype != torch.float32 or weight.ndim != 2:
        return None
    if weight.shape[0] % _narrow.OUTPUTS or weight.shape[1] % _narrow.INPUTS:
        return None
    for dtype in (torch.bfloat16, torch.float16):
        short = weight.detach().to(dtype).contiguous()
        if torch.equal(short.float(), weight):
            return short
    return None


def linear(weight: torch.Tensor, x: torch.Tensor, _: object, bias: torch.Tensor | None) -> torch.Tensor:
    """``x`` times the transposed weights, plus ``bias``, in the place of vLLM's ``cpu_linear``.

    Args:
        weight: what :func:`narrowed` returned, of shape [outputs, inputs].
        x: float32, of shape [..., inputs].
        bias: of shape [outputs].
    """
    outputs, inputs = weight.shape
    rows = x.reshape(-1, inputs).contiguous()
    y = rows.new_empty(len(rows), outputs)
    at = (rows.data_ptr(), weight.data_ptr(), y.data_ptr())
    _narrow.multiply(*at, len(rows), outputs, inputs, weight.dtype == torch.bfloat16)
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], outputs)
