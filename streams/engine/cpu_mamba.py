"""What vLLM's CPU build lacks to run state-space models: Mamba's scan over a prompt, and the copying of states."""

from __future__ import annotations

import ctypes

import torch
import torch.nn.functional as functional
from vllm import _custom_ops
from vllm.v1.worker import mamba_utils


def install() -> None:
    """Put both where vLLM looks for them. It has them for GPUs only: one in CUDA, one in Triton."""
    _custom_ops.selective_scan_fwd = selective_scan_fwd
    mamba_utils.batch_memcpy = batch_memcpy


def selective_scan_fwd(
    u: torch.Tensor,
    delta: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    c: torch.Tensor,
    d: torch.Tensor | None,
    z: torch.Tensor | None,
    delta_bias: torch.Tensor | None,
    delta_softplus: bool,
    query_start_loc: torch.Tensor,
    cache_indices: torch.Tensor,
    has_initial_state: torch.Tensor,
    states: torch.Tensor,
    null_block: int,
    *_: object,
) -> None:
    """Mamba's recurrence over the prompts of a batch, one behind the other.

    Args:
        u, delta, z: inputs, steps and gate, (channels, tokens). The result replaces ``z``, or ``delta`` without one.
        a: (channels, state).
        b, c: (1, state, tokens).
        d, delta_bias: (channels,).
        delta_softplus: steps are still to be made positive.
        query_start_loc: where each prompt begins in the tokens, and where the last one ends.
        cache_indices: the row of ``states`` of each prompt; one of padding has ``null_block``.
        has_initial_state: whether each prompt goes on from its row.
        states: (rows, channels, state), changed in place.
        null_block: see ``cache_indices``.
    """
    inputs, outputs, steps = u.float(), torch.zeros_like(u, dtype=torch.float32), delta.float()
    if delta_bias is not None:
        steps = steps + delta_bias.float()[:, None]
    if delta_softplus:
        steps = functional.softplus(steps)
    into, out_of = b[0].float(), c[0].float()
    starts, rows, goes_on = query_start_loc.tolist(), cache_indices.flatten().tolist(), has_initial_state.tolist()
    for row, begin, end, initial in zip(rows, starts, starts[1:], goes_on, strict=False):
        if begin == end or row == null_block:
            continue
        state = states[row].float().clone() if initial else torch.zeros_like(a, dtype=torch.float32)
        for token in range(begin, end):
            step = steps[:, token, None]
            state.mul_(torch.exp(step * a)).addcmul_(step * inputs[:, token, None], into[None, :, token])
            outputs[:, token] = state @ out_of[:, token]
        states[row].copy_(state)
    if d is not None:
        outputs += inputs * d.float()[:, None]
    if z is not None:
        outputs *= functional.silu(z.float())
    (delta if z is None else z).copy_(outputs)


def batch_memcpy(sources: torch.Tensor, targets: torch.Tensor, sizes: torch.Tensor) -> None:
    """Copy pieces of memory, named by address; a piece may overlap its copy.

    Args:
        sources, targets: addresses, (pieces,).
        sizes: in bytes, (pieces,).
    """
    for source, target, size in zip(sources.tolist(), targets.tolist(), sizes.tolist(), strict=True):
        ctypes.memmove(target, source, size)
