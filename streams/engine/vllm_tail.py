"""The last, unfilled KV block of a held stream, for questions over it. Imported by vLLM in the engine's own process.

vLLM's prefix cache knows whole blocks, so each question would compute again what a stream has in its last one: half a
block on average, which on a CPU is a fifth of the time to a first token. A KV connector, vLLM's interface for KV that
comes from elsewhere, takes it from the held request instead: the block is copied into the question's own before the
step that computes the rest. Whatever else is in the copy is overwritten by the question's own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.request import Request


@dataclass(frozen=True, slots=True)
class Copies(KVConnectorMetadata):  # type: ignore[misc]  # vLLM ships no types
    """What a step begins with.

    Attributes:
        blocks: ids of a block to read and one to write, in the order in which they are to be copied.
    """

    blocks: Sequence[tuple[int, int]]


class TailConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]  # vLLM ships no types
    """One in the scheduler, which finds and plans, and one in the worker, which copies.

    Steps run one after another in the worker, and what a step before has computed is there when a copy begins. So a
    held request counts with what it was scheduled for in earlier steps, whether or not these have run yet.
    """

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._block = vllm_config.cache_config.block_size
        specs = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
        # A place in the stream must be the same block in all groups, and hold tokens in each.
        self._usable = all(isinstance(spec, AttentionSpec) and spec.block_size == self._block for spec in specs)
        self._held: dict[str, Request] = {}
        # Of the request that was looked up last; blocks are allocated to it next.
        self._source, self._at = "", 0
        self._copies: list[tuple[int, int]] = []
        self._caches: list[torch.Tensor] = []

    @property
    def requires_kv_delivery(self) -> bool:
        return False

    # In the scheduler

    def on_new_request(self, request: Request) -> None:
        if request.resumable:
            self._held[request.request_id] = request

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int, bool]:
        start, block = num_computed_tokens, self._block
        before = start // block
        # The last token has to be computed: its logits are the answer's first.
        wanted = request.all_token_ids[start : min(start + block, request.num_tokens - 1)] if self._usable else ()
        most = 0
        for held in self._held.values() if wanted else ():
            if held is request or held.num_computed_tokens <= start:
                continue
            # A block's hash is that of all before it as well.
            if before and held.block_hashes[before - 1] != request.block_hashes[before - 1]:
                continue
            length = _shared(held.all_token_ids[start : min(start + block, held.num_computed_tokens)], wanted)
            if length > most and self._has(held, before):
                most, self._source, self._at = length, held.request_id, before
        return most, False

    def _has(self, held: Request, at: int) -> bool:
        """Whether all groups have the block at this place still: a sliding window gives back what has left it."""
        null = self._kv_cache_manager.block_pool.null_block.block_id
        return all(blocks[at] != null for blocks in self._kv_cache_manager.get_block_ids(held.request_id))

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        if not num_external_tokens:
            return
        groups = zip(self._kv_cache_manager.get_block_ids(self._source), blocks.get_block_ids(), strict=True)
        self._copies += [(source[self._at], target[self._at]) for source, target in groups]

    def build_connector_meta(self, scheduler_output: SchedulerOutput) -> Copies:
        copies, self._copies = Copies(self._copies), []
        return copies

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        self._held.pop(request.request_id, None)
        return False, None

    # In the worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        # Layers may share one.
        self._caches = list({cache.data_ptr(): cache for cache in kv_caches.values()}.values())

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for source, target in self._get_connector_metadata().blocks:
            for cache in self._caches:
                cache[target] = cache[source]

    def wait_for_layer_load(self, layer_name: str) -> None:
        """It is there before the first layer begins."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing is kept elsewhere."""

    def wait_for_save(self) -> None:
        """Nothing is kept elsewhere."""


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
