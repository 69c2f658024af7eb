"""Norms as one operator each, on a CPU, attention without one around it, and products of few different sizes.

vLLM's build for CPUs has a kernel for norms and does not use it: a norm is eight operators of PyTorch, which take
longer to be called than to compute. Imported by vLLM in the engine's own process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from vllm import _custom_ops as ops
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.layernorm import RMSNorm

# The kernel computes that many numbers at once.
_LANES = 32
_onednn_mm = ops.onednn_mm
_FORMATS = (torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def fewer_operators() -> Iterator[None]:
    """Inside, norms that are made use vLLM's kernel wherever it computes what they do."""
    op_registry_oot["RMSNorm"] = _Norm
    try:
        yield
    finally:
        del op_registry_oot["RMSNorm"]


def call_directly(model: torch.nn.Module) -> None:
    """Have a loaded model's attention layers called as what they are, functions in Python.

    vLLM wraps them into operators so that a compiler does not look inside; nothing is compiled here.
    """
    for layer in model.modules():
        if hasattr(layer, "use_direct_call"):
            layer.use_direct_call = True


def few_sizes() -> None:
    """Have oneDNN multiply a few different numbers of rows only.

    It prepares itself for each number of tokens in a step anew: for the default model that takes 5 ms and 3 MB, which
    are never given back, and ingest has steps of every size.
    """
    ops.onednn_mm = _multiply


def _multiply(handler: Any, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    rows = x.reshape(-1, handler.k)
    size = rounded(len(rows))
    if size == len(rows):
        return _onednn_mm(handler, x, bias)
    product = _onednn_mm(handler, torch.nn.functional.pad(rows, (0, 0, 0, size - len(rows))), bias)
    return product[: len(rows)].view(*x.shape[:-1], -1)


def rounded(rows: int) -> int:
    """The number of rows that is computed where there are ``rows``: at most a quarter more beyond 64."""
    if rows <= 8:
        return 1 << (rows - 1).bit_length() if rows else 0
    step = max(8, 1 << ((rows - 1).bit_length() - 3))
    return -(-rows // step) * step


class _Norm(RMSNorm):  # type: ignore[misc]  # vLLM ships no types
    def forward_cpu(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        weight = self.weight
        if self.variance_size_override is not None or weight.dtype != x.dtype or not (self.has_weight and computes(x)):
            return super().forward_cpu(x, residual)
        if residual is None:
            normed = torch.empty_like(x)
            torch.ops._C.rms_norm(normed, x, weight, self.variance_epsilon)
            return normed
        if residual.dtype != x.dtype or not residual.is_contiguous():
            return super().forward_cpu(x, residual)
        torch.ops._C.fused_add_rms_norm(x, residual, weight, self.variance_epsilon)
        return x, residual


def computes(x: torch.Tensor) -> bool:
    """Whether vLLM's kernel takes such rows."""
    return x.is_contiguous() and x.shape[-1] % _LANES == 0 and x.dtype in _FORMATS
