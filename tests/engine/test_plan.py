"""The plan agrees with vLLM's own configuration, grouping and figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm import ModelRegistry
from vllm.v1.core.kv_cache_utils import _get_kv_cache_groups_uniform_page_size
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheSpec, MambaSpec, SlidingWindowSpec

from streams.engine.vllm import VllmEngine
from streams.engine.vllm_plan import planned, size_of, with_blocks
from streams.engine.vllm_start import EngineOptions, configured
from streams.errors import ModelError
from streams.models.plan import Cache
from streams.models.shape import Attention, Shape, State
from tests.streams.models.configs import config, heads

MIB = 2**20
COMMON: dict[str, Any] = {"max_position_embeddings": 4096, "dtype": "float32", "head_dim": 32, **heads(4, 2)}
LLAMA = config("llama", 512, 64, 2, 128, architectures=["LlamaForCausalLM"], **COMMON)
GEMMA = config(
    "gemma3_text", 512, 64, 6, 128, architectures=["Gemma3ForCausalLM"], sliding_window=64, **COMMON
)  # fmt: skip
MAMBA = config("mamba", 512, 64, 2, architectures=["MambaForCausalLM"], dtype="float32", state_size=16)
MAMBA_2 = config(
    "mamba2", 512, 64, 2, architectures=["Mamba2ForCausalLM"], dtype="float32", state_size=16, num_heads=4, head_dim=32,
    n_groups=1,
)  # fmt: skip
# KV cache of a token in float32: layers x keys and values x heads x numbers x bytes.
TOKEN = 2 * 2 * 2 * 32 * 4


def options(directory: Path, given: dict[str, Any], **changed: Any) -> EngineOptions:
    (directory / "config.json").write_text(json.dumps(given))
    plain = EngineOptions(
        model=directory, name="toy", context=1024, dtype="float32", kv_cache_bytes=8 * MIB, max_num_seqs=16
    )
    return replace(plain, **changed)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The directories have a config and nothing else, and nobody is asked for more."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def layers(kind: int, spec: KVCacheSpec, count: int) -> dict[str, KVCacheSpec]:
    return {f"{kind}.{index}": spec for index in range(count)}


@pytest.mark.parametrize(
    ("full", "sliding"), [(3, 15), (5, 29), (1, 1), (2, 3), (5, 7), (12, 13), (21, 21), (8, 24), (4, 9), (10, 1)]
)
def test_layers_are_grouped_as_vllm_groups_them(full: int, sliding: int) -> None:
    common: dict[str, Any] = {"block_size": 32, "num_kv_heads": 2, "head_size": 32, "dtype": torch.float16}
    specs = layers(0, FullAttentionSpec(**common), full)
    specs |= layers(1, SlidingWindowSpec(**common, sliding_window=64), sliding)
    groups = _get_kv_cache_groups_uniform_page_size(specs)
    shape = shaped(Attention(full, 2, 64), Attention(sliding, 2, 64, 64))
    footprint, block_bytes = Cache(block_size=32, batch=512).layout(shape)
    kinds = [type(group.kv_cache_spec) for group in groups]
    assert footprint.bounds.count(None) == kinds.count(FullAttentionSpec)
    assert len(footprint.bounds) == len(groups)
    page = groups[0].kv_cache_spec.page_size_bytes
    assert block_bytes == page * max(len(group.layer_names) for group in groups)
    for group in groups:
        if isinstance(group.kv_cache_spec, SlidingWindowSpec):
            bound = group.kv_cache_spec.max_admission_blocks_per_request(512, 10**6)
            assert bound in footprint.bounds


def test_states_are_grouped_with_attention() -> None:
    attention = FullAttentionSpec(block_size=64, num_kv_heads=2, head_size=32, dtype=torch.float16)
    mamba = MambaSpec(
        block_size=64, shapes=((4096,),), dtypes=(torch.float16,), page_size_padded=attention.page_size_bytes
    )
    groups = _get_kv_cache_groups_uniform_page_size(layers(0, attention, 4) | layers(1, mamba, 28))
    # A block of 32 tokens has half of a state's size, so there are 64 in one.
    footprint, block_bytes = Cache(block_size=32).layout(shaped(Attention(4, 2, 64), State(28, 6000)))
    assert footprint.block_size == 64
    assert len(groups) == len(footprint.bounds) + footprint.states // 3
    assert block_bytes == 4 * attention.page_size_bytes


def shaped(*kept: Attention | State) -> Shape:
    return Shape(
        model_type="toy", parameters=0, context=None, layers=0, hidden=0, heads=0, kv_heads=0, kept=kept
    )  # fmt: skip


def test_plan_is_made_of_vllms_configuration(tmp_path: Path) -> None:
    given = options(tmp_path, LLAMA)
    with configured(given, tmp_path) as vllm:
        plan = planned(vllm, kv_type="auto", sessions=None)
    assert plan is not None
    assert (plan.context, plan.pool, plan.cache.block_size, plan.cache.item_size) == (1024, 8 * MIB, 32, 4)
    assert plan.token_bytes == TOKEN
    assert plan.weights == 4 * plan.shape.parameters
    assert with_blocks(plan, 11).blocks == 10
    size = size_of(plan, vllm.model_config, "auto", None)
    assert (size.weights, size.parameters) == (plan.weights, plan.shape.parameters)
    assert (size.layers, size.hidden, size.heads, size.kv_heads, size.trained_context) == (2, 64, 4, 2, 4096)
    assert (size.kv_type, size.quantization) == ("fp32", None)
    asked = size_of(None, vllm.model_config, "int8", "fp8")
    assert (asked.kv_type, asked.quantization, asked.layers) == ("int8", "fp8", None)


def test_windows_are_bounded_by_what_vllm_computes_at_once(tmp_path: Path) -> None:
    with configured(options(tmp_path, GEMMA), tmp_path) as vllm:
        plan = planned(vllm, kv_type="auto", sessions=None)
    assert plan is not None
    batch = vllm.max_in_flight_tokens
    assert plan.footprint.bounds == (-(-(63 + batch) // 32) + 1,) * 5 + (None,)


@pytest.mark.parametrize("given", [MAMBA, MAMBA_2], ids=["mamba", "mamba2"])
def test_a_state_is_as_large_as_vllms(tmp_path: Path, given: dict[str, Any]) -> None:
    with configured(options(tmp_path, given, context=None), tmp_path) as vllm:
        plan = planned(vllm, kv_type="auto", sessions=None)
        made, _ = ModelRegistry.resolve_model_cls(vllm.model_config.architecture, model_config=vllm.model_config)
        shapes = made.get_mamba_state_shape_from_config(vllm)
        formats = made.get_mamba_state_dtype_from_config(vllm)
    assert plan is not None
    state = sum(math.prod(shape) * each.itemsize for shape, each in zip(shapes, formats, strict=True))
    assert plan.block_bytes == given["num_hidden_layers"] * state
    assert (plan.footprint.bounds, plan.footprint.states) == ((), 3)


def test_what_does_not_fit_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    small = options(tmp_path, LLAMA, kv_cache_bytes=MIB // 2)
    with (
        pytest.raises(
            ModelError,
            match=r"A context of 1024 tokens needs 1\.0 MiB .* 0\.5 MiB are set aside, which hold 480 tokens",
        ),
        configured(small, tmp_path),
    ):
        pass
    many = options(tmp_path, LLAMA, sessions=8)
    with (
        pytest.raises(ModelError, match=r"8 streams of 1024 tokens .* which hold 6\. .* lower --context to \d+"),
        configured(many, tmp_path),
    ):
        pass
    with configured(options(tmp_path, LLAMA, sessions=6), tmp_path):
        pass


def test_formats_that_a_cpu_does_not_have_are_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="needs a GPU"),
        configured(options(tmp_path, LLAMA, kv_cache_type="int8"), tmp_path),
    ):
        pass
    with (
        pytest.raises(ModelError, match="for GPUs"),
        configured(options(tmp_path, LLAMA, cpu_offload_gb=1.0), tmp_path),
    ):
        pass
    with (
        pytest.raises(ModelError, match="is not known"),
        configured(options(tmp_path, LLAMA, quantization="Q4_0"), tmp_path),
    ):
        pass


def test_what_a_stream_takes_is_vllms_own_figure(vllm_engine: VllmEngine) -> None:
    cache, facts, plan = vllm_engine._llm.vllm_config.cache_config, vllm_engine.facts, vllm_engine.plan
    assert plan is not None
    assert plan.blocks == cache.num_gpu_blocks - 1
    assert facts.footprint == plan.footprint
    assert facts.footprint.blocks(facts.context) == pytest.approx(cache.num_gpu_blocks / cache.kv_cache_max_concurrency)
    assert cache.kv_cache_memory_bytes // plan.block_bytes == cache.num_gpu_blocks
