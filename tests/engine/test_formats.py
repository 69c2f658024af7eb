"""Number formats: what vLLM is asked for, and what is refused before it is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from vllm import AsyncEngineArgs
from vllm.config.cache import CacheDType
from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS

from streams.engine.vllm_formats import kv_cache_arguments, offload_arguments, quantization_arguments
from streams.errors import ModelError
from streams.models.plan import KvType


@pytest.mark.parametrize("cpu", [True, False])
@pytest.mark.parametrize("kv_type", ["auto", "fp16"])
def test_the_models_own_format_is_vllms_default(kv_type: KvType, cpu: bool) -> None:
    assert kv_cache_arguments(kv_type, cpu=cpu) == {}


@pytest.mark.parametrize("kv_type", ["fp8", "int8", "int4"])
def test_a_gpu_has_all_formats(kv_type: KvType) -> None:
    arguments = kv_cache_arguments(kv_type, cpu=False)
    assert arguments["kv_cache_dtype"] in get_args(CacheDType)
    assert AsyncEngineArgs(model="none", **arguments).kv_cache_dtype == arguments["kv_cache_dtype"]


@pytest.mark.parametrize(
    ("kv_type", "flags", "reason"),
    [("fp8", {"avx2"}, "AVX-512 or AMX"), ("int8", {"avx512f"}, "needs a GPU"), ("int4", {"amx_tile"}, "needs a GPU")],
)
def test_a_cpu_refuses_what_it_has_no_kernels_for(kv_type: KvType, flags: set[str], reason: str) -> None:
    with pytest.raises(ModelError, match=reason) as refused:
        kv_cache_arguments(kv_type, cpu=True, flags=flags)
    assert refused.value.param == "kv_cache_type"
    assert f"--kv-cache-type {kv_type}" in refused.value.message


@pytest.mark.parametrize("flag", ["avx512f", "amx_tile"])
def test_a_cpu_that_can_has_fp8(flag: str) -> None:
    assert kv_cache_arguments("fp8", cpu=True, flags={"sse", flag}) == {"kv_cache_dtype": "fp8"}


def checkpoint(directory: Path, **config: object) -> Path:
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_weights_are_loaded_as_vllm_is_told(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path)
    assert quantization_arguments(None, plain, QUANTIZATION_METHODS) == {}
    for name in ("fp8", "awq", "gptq"):
        assert quantization_arguments(name, plain, QUANTIZATION_METHODS) == {"quantization": name}
    (asked,) = quantization_arguments("int8", plain, QUANTIZATION_METHODS).values()
    assert asked in QUANTIZATION_METHODS


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_checkpoint_that_was_made_so_says_how(tmp_path: Path, name: str) -> None:
    made = checkpoint(tmp_path, quantization_config={"quant_method": "awq", "bits": 4})
    assert quantization_arguments(name, made, QUANTIZATION_METHODS) == {}


def test_four_bits_need_a_checkpoint_that_was_made_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="AWQ, GPTQ or compressed-tensors") as refused:
        quantization_arguments("int4", checkpoint(tmp_path), QUANTIZATION_METHODS)
    assert refused.value.param == "quantization"


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"--quantization Q4_K_M is not known; .*\bawq\b.*\bgptq\b"):
        quantization_arguments("Q4_K_M", checkpoint(tmp_path), QUANTIZATION_METHODS)


def test_nothing_is_kept_out_of_a_gpu_that_is_none() -> None:
    assert offload_arguments(0, cpu=True) == offload_arguments(0, cpu=False) == {}
    (name,) = offload_arguments(2.5, cpu=False)
    assert getattr(AsyncEngineArgs(model="none", **{name: 2.5}), name) == 2.5
    with pytest.raises(ModelError, match="in the machine's memory already") as refused:
        offload_arguments(2.5, cpu=True)
    assert refused.value.param == "cpu_offload_gb"
