"""Attention over a float32 KV cache, in the place of vLLM's kernel for CPUs.

vLLM's pads the query heads of a KV head to a full tile, and so spends a step of few tokens on what it throws away.
Keys and values are read where vLLM wrote them (``attention.c``). Imported by vLLM in the engine's own process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from vllm import _custom_ops as ops
from vllm.v1.attention.backend import AttentionType
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionBackendImpl, CPUAttentionMetadata

from streams.engine import _attention

# Further than any position.
_NO_WINDOW = 1 << 40


@contextmanager
def own_attention() -> Iterator[None]:
    """Inside, attention layers that are made use our kernel wherever it computes what they ask for."""
    theirs = CPUAttentionBackend.__dict__["get_impl_cls"]
    CPUAttentionBackend.get_impl_cls = staticmethod(lambda: _Attention)
    try:
        yield
    finally:
        CPUAttentionBackend.get_impl_cls = theirs


class _Attention(CPUAttentionBackendImpl):  # type: ignore[misc]  # vLLM ships no types
    """vLLM's attention layer, with our kernel for causal float32 layers without extras."""

    _cache: torch.Tensor | None = None
    _halves: tuple[torch.Tensor, torch.Tensor]

    def do_kv_cache_update(
        self, layer: Any, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slot_mapping: torch.Tensor
    ) -> None:
        if self.attn_type != AttentionType.DECODER:
            super().do_kv_cache_update(layer, key, value, kv_cache, slot_mapping)
            return
        if self._cache is not kv_cache:
            # The same in every step, so it is taken apart once.
            blocks, heads, block, _ = kv_cache.shape
            self._halves = kv_cache.view(blocks, heads, 2 * block, -1).chunk(2, dim=2)
            self._cache = kv_cache
        ops.cpu_attn_reshape_and_cache(
            key,
            value,
            *self._halves,
            slot_mapping,
            layer.isa,
            k_scale=layer._k_scale_float,
            v_scale=layer._v_scale_float,
            kv_cache_dtype=self.kv_cache_dtype,
        )

    def forward(
        self,
        layer: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        kv_cache: torch.Tensor,
        attn_metadata: CPUAttentionMetadata | None,
        output: torch.Tensor,
        output_scale: torch.Tensor | None = None,
        output_block_scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        scales = (output_scale, output_block_scale)
        if attn_metadata is None or scales != (None, None) or not self._applies(query, kv_cache, attn_metadata):
            return super().forward(layer, query, key, value, kv_cache, attn_metadata, output, *scales)
        attend(
            query,
            kv_cache,
            output,
            starts=attn_metadata.query_start_loc,
            lengths=attn_metadata.seq_lens,
            table=attn_metadata.block_table,
            scale=self.scale,
            window=self.sliding_window if self.sliding_window > 0 else None,
        )
        return output

    def _applies(self, query: torch.Tensor, kv_cache: torch.Tensor, metadata: CPUAttentionMetadata) -> bool:
        return (
            self.attn_type == AttentionType.DECODER
            and metadata.causal is True
            and metadata.dynamic_causal is None
            and self.alibi_slopes is None
            and self.sinks is None
            and not self.logits_soft_cap
            and query.dtype == torch.float32
            and computes(kv_cache)
        )


def computes(kv_cache: torch.Tensor) -> bool:
    """Whether the kernel reads such a KV cache on this processor.

    Args:
        kv_cache: as in :func:`attend`.
    """
    _, _, block, pair = kv_cache.shape
    return (
        _attention.usable()
        and kv_cache.dtype == torch.float32
        and kv_cache[0, 0].is_contiguous()
        and block % _attention.TILE == 0
        and pair % (2 * _attention.SIZES) == 0
    )


def attend(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    output: torch.Tensor,
    *,
    starts: torch.Tensor,
    lengths: torch.Tensor,
    table: torch.Tensor,
    scale: float,
    window: int | None,
) -> None:
    """Write to ``output`` what the newest tokens of each sequence attend to.

    Args:
        query: float32, of shape [tokens, heads, size].
        kv_cache: of shape [blocks, KV heads, block size, 2 * size]; each KV head of a block has its keys, transposed,
            and then its values.
        output: of the shape of ``query``.
        starts: int32, of shape [sequences + 1]; where the tokens of each sequence begin.
        lengths: int32, of shape [sequences]; tokens of each sequence, the newest included.
        table: int32, of shape [sequences, any]; the blocks of each sequence.
        scale: of the scores.
        window: how many tokens one attends to, itself included; None for all.
    """
    _, heads, size = query.shape
    _, kv_heads, block, _ = kv_cache.shape
    _attention.attend(
        (
            query.data_ptr(),
            kv_cache.data_ptr(),
            output.data_ptr(),
            starts.data_ptr(),
            lengths.data_ptr(),
            table.data_ptr(),
        ),
        (len(lengths), heads, kv_heads, size, block, window or _NO_WINDOW),
        (query.stride(0), output.stride(0), kv_cache.stride(0), kv_cache.stride(1), table.stride(0)),
        scale,
    )
