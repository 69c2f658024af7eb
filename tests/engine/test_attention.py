"""Our attention is what attention is, over the KV cache that vLLM writes."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm import _custom_ops as ops
from vllm.config import DeviceConfig, VllmConfig, set_current_vllm_config
from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend, CPUAttentionMetadata

from streams.engine import _attention
from streams.engine.attention import attend, computes, own_attention

USABLE = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


@dataclass(frozen=True)
class Sequence:
    """Keys and values of shape [tokens, KV heads, size], and the queries of the newest tokens, [new, heads, size]."""

    keys: torch.Tensor
    values: torch.Tensor
    queries: torch.Tensor


def sequence(tokens: int, new: int, heads: int, kv_heads: int, size: int, seed: int = 1) -> Sequence:
    generator = torch.Generator().manual_seed(seed)
    keys, values = torch.randn(2, tokens, kv_heads, size, generator=generator)
    return Sequence(keys, values, torch.randn(new, heads, size, generator=generator))


def cache_of(sequences: list[Sequence], block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A KV cache that vLLM wrote the sequences to, with NaN wherever it wrote nothing, and their block table."""
    blocks = [-(-len(sequence.keys) // block) for sequence in sequences]
    _, kv_heads, size = sequences[0].keys.shape
    cache = torch.full((sum(blocks), kv_heads, block, 2 * size), torch.nan)
    keys, values = cache.view(sum(blocks), kv_heads, 2 * block, size).chunk(2, dim=2)
    order = torch.randperm(sum(blocks), generator=torch.Generator().manual_seed(2), dtype=torch.int32)
    table = torch.zeros(len(sequences), max(blocks), dtype=torch.int32)
    for row, (sequence, mine) in enumerate(zip(sequences, order.split(blocks), strict=True)):
        table[row, : len(mine)] = mine
        at = torch.arange(len(sequence.keys))
        slots = mine[at // block] * block + at % block
        isa = "vec16" if size % 32 else "vec"
        ops.cpu_attn_reshape_and_cache(sequence.keys, sequence.values, keys, values, slots, isa)
    return cache, table


def attended(sequences: list[Sequence], block: int = 32, window: int | None = None) -> list[torch.Tensor]:
    """What the kernel says of each sequence's queries."""
    cache, table = cache_of(sequences, block)
    assert computes(cache) is USABLE
    query = torch.cat([sequence.queries for sequence in sequences])
    news = [len(sequence.queries) for sequence in sequences]
    output = torch.full_like(query, torch.nan)
    attend(
        query,
        cache,
        output,
        starts=torch.tensor([0, *news]).cumsum(0).int(),
        lengths=torch.tensor([len(sequence.keys) for sequence in sequences], dtype=torch.int32),
        table=table,
        scale=query.shape[2] ** -0.5,
        window=window,
    )
    return list(output.split(news))


def expected(sequence: Sequence, window: int | None = None) -> torch.Tensor:
    """The same, in double precision and by the book."""
    tokens, kv_heads, size = sequence.keys.shape
    new, heads, _ = sequence.queries.shape
    keys, values = (
        tensor.double().repeat_interleave(heads // kv_heads, dim=1) for tensor in (sequence.keys, sequence.values)
    )
    scores = torch.einsum("qhd,khd->hqk", sequence.queries.double(), keys) * size**-0.5
    distance = torch.arange(tokens - new, tokens)[:, None] - torch.arange(tokens)
    seen = (distance >= 0) & (distance < (window or tokens))
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)


def assert_right(results: list[torch.Tensor], sequences: list[Sequence], window: int | None = None) -> None:
    for result, each in zip(results, sequences, strict=True):
        torch.testing.assert_close(result.double(), expected(each, window), atol=1e-5, rtol=0)


def test_it_is_used_where_the_processor_has_what_it_takes() -> None:
    assert _attention.usable() is USABLE


@given(
    lengths=st.lists(st.tuples(st.integers(1, 600), st.integers(1, 80)), min_size=1, max_size=4),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    size=st.sampled_from(CPUAttentionBackend.get_supported_head_sizes()),
    block=st.sampled_from([32, 64, 96, 256]),
    window=st.none() | st.integers(1, 700),
    seed=st.integers(0, 2**32),
)
def test_it_is_what_attention_is(
    lengths: list[tuple[int, int]], kv_heads: int, group: int, size: int, block: int, window: int | None, seed: int
) -> None:
    sequences = [
        sequence(tokens, min(tokens, new), kv_heads * group, kv_heads, size, seed + i)
        for i, (tokens, new) in enumerate(lengths)
    ]
    assert_right(attended(sequences, block, window), sequences, window)


def test_more_than_is_merged_at_once() -> None:
    sequences = [sequence(tokens, new, 8, 2, 128, new) for tokens, new in ((3000, 600), (2000, 1), (2500, 300))]
    assert_right(attended(sequences), sequences)


def test_scores_may_be_large_and_far_apart() -> None:
    plain = sequence(700, 40, 4, 2, 64)
    large = Sequence(plain.keys * 30, plain.values, plain.queries * 30)
    torch.testing.assert_close(attended([large])[0].double(), expected(large), atol=1e-3, rtol=0)


@pytest.mark.parametrize("window", [None, 100])
def test_a_tokens_result_is_the_same_in_any_batch_and_any_cut_of_its_prompt(window: int | None) -> None:
    whole = sequence(650, 650, 6, 2, 64)
    together = attended([sequence(900, 37, 6, 2, 64, 3), whole, sequence(1, 1, 6, 2, 64, 4)], window=window)[1]
    for end in (1, 31, 32, 33, 256, 257, 400, 650):
        for new in {1, min(end, 7), end}:
            part = Sequence(whole.keys[:end], whole.values[:end], whole.queries[end - new : end])
            assert torch.equal(attended([part], window=window)[0], together[end - new : end])


@pytest.mark.parametrize(
    "cache",
    [
        torch.zeros(2, 1, 32, 128, dtype=torch.bfloat16),
        torch.zeros(2, 1, 16, 128),
        torch.zeros(2, 1, 32, 48),
        torch.zeros(2, 1, 128, 32).transpose(2, 3),
    ],
    ids=["short", "small blocks", "odd heads", "other layout"],
)
def test_a_cache_that_it_does_not_read_is_left_to_vllm(cache: torch.Tensor) -> None:
    assert not computes(cache)


@pytest.mark.parametrize(
    "sizes", [(1, 3, 2, 64, 32, 9), (1, 2, 2, 60, 32, 9), (1, 2, 2, 64, 16, 9), (1, 2, 2, 64, 32, 0)]
)
def test_addresses_are_used_for_sizes_that_it_computes_only(sizes: tuple[int, int, int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="needs"):
        _attention.attend((0, 0, 0, 0, 0, 0), sizes, (0, 0, 0, 0, 0), 1.0)


@pytest.mark.parametrize("soft_cap", [None, 5.0], ids=["ours", "vllm's"])
@pytest.mark.parametrize("window", [None, 100])
def test_layers_that_are_made_inside_attend_as_vllms_do(window: int | None, soft_cap: float | None) -> None:
    sequences = [sequence(700, 50, 6, 2, 64, 5), sequence(90, 1, 6, 2, 64, 6)]
    cache, table = cache_of(sequences, 32)
    starts = torch.tensor([0, 50, 51], dtype=torch.int32)
    lengths = torch.tensor([700, 90], dtype=torch.int32)
    query = torch.cat([each.queries for each in sequences])
    metadata = CPUAttentionMetadata(
        num_actual_tokens=51,
        max_query_len=50,
        query_start_loc=starts,
        max_seq_len=700,
        seq_lens=lengths,
        block_table=table,
        slot_mapping=torch.empty(0, dtype=torch.int64),
        scheduler_metadata=ops.cpu_attn_get_scheduler_metadata(
            num_reqs=2,
            num_heads=6,
            num_kv_heads=2,
            head_dim=64,
            seq_lens=lengths,
            dtype=torch.float32,
            query_start_loc=starts,
            causal=True,
            sliding_window_size=window or -1,
            isa="vec",
            enable_kv_split=True,
        ),
    )
    before = CPUAttentionBackend.get_impl_cls()
    with own_attention():
        ours = CPUAttentionBackend.get_impl_cls()
    assert CPUAttentionBackend.get_impl_cls() is before
    results = []
    for kind in (ours, before):
        config = VllmConfig(device_config=DeviceConfig("cpu"))
        config.model_config = SimpleNamespace(dtype=torch.float32)
        with set_current_vllm_config(config):
            impl = kind(6, 64, 0.125, 2, None, window, "auto", soft_cap)
        output = torch.full_like(query, torch.nan)
        layer = SimpleNamespace(_k_scale_float=1.0, _v_scale_float=1.0)
        results.append(impl.forward(layer, query, query, query, cache.nan_to_num(), metadata, output))
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
