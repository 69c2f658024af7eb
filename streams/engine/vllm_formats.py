"""Number formats of weights and KV cache, and what stays out of a GPU: as vLLM's arguments, or refused."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from streams.errors import ModelError
from streams.models.plan import KvType

# What a model of vLLM's is asked for that brings no format of its own.
_ONLINE = {"int8": "int8_per_channel_weight_only"}
# AVX-512 and AMX: without either, vLLM has no kernel for it.
_FP8_FLAGS = {"avx512f", "amx_tile"}


def kv_cache_arguments(kv_type: KvType, *, cpu: bool, flags: Collection[str] = ()) -> dict[str, Any]:
    """vLLM's arguments for a number format of the KV cache.

    Args:
        kv_type: "auto" and "fp16" are the model's own.
        cpu: vLLM runs on the processor.
        flags: what that processor can do, by the kernel's names.

    Raises:
        ModelError: vLLM has no kernels for it there.
    """
    if kv_type in ("auto", "fp16"):
        return {}
    if kv_type == "fp8":
        if cpu and not _FP8_FLAGS & set(flags):
            raise _refused(
                "--kv-cache-type fp8 needs a processor with AVX-512 or AMX, or a GPU; leave it at fp16 here.",
                "kv_cache_type",
            )
        return {"kv_cache_dtype": "fp8"}
    if cpu:
        raise _refused(
            f"--kv-cache-type {kv_type} needs a GPU: on a CPU the KV cache is fp16, or fp8 where the processor has"
            " AVX-512 or AMX. Leave it at fp16, and lower --context to save memory.",
            "kv_cache_type",
        )
    # The only backend that reads these.
    return {"kv_cache_dtype": f"{kv_type}_per_token_head", "attention_backend": "TRITON_ATTN"}


def quantization_arguments(wanted: str | None, model: Path, methods: Collection[str]) -> dict[str, Any]:
    """vLLM's arguments for a number format of the weights.

    Args:
        wanted: a name of vLLM's, or int8 or int4; None for what the checkpoint says of itself.
        model: its directory.
        methods: vLLM's names.

    Raises:
        ModelError: there is no such format, or the checkpoint has to come in it and does not.
    """
    if wanted is None:
        return {}
    if wanted in ("int8", "int4"):
        if _quantized(model):
            return {}
        if wanted in _ONLINE:
            return {"quantization": _ONLINE[wanted]}
        raise _refused(
            "--quantization int4 needs a checkpoint that was made so: choose an AWQ, GPTQ or compressed-tensors"
            " version of the model, or --quantization int8 or fp8, which any checkpoint can be loaded in.",
            "quantization",
        )
    if wanted not in methods:
        raise _refused(
            f"--quantization {wanted[:40]} is not known; int8, int4 or one of vLLM's: {', '.join(sorted(methods))}.",
            "quantization",
        )
    return {"quantization": wanted}


def offload_arguments(gigabytes: float, *, cpu: bool) -> dict[str, Any]:
    """vLLM's arguments for weights that stay in the machine's memory, beside a GPU.

    Args:
        gigabytes: GiB of weights for each worker.
        cpu: vLLM runs on the processor.

    Raises:
        ModelError: there is no GPU.
    """
    if not gigabytes:
        return {}
    if cpu:
        raise _refused(
            "--cpu-offload-gb is for GPUs: on a CPU the whole model is in the machine's memory already; leave it out.",
            "cpu_offload_gb",
        )
    return {"cpu_offload_gb": gigabytes}


def _quantized(model: Path) -> bool:
    try:
        config = json.loads((model / "config.json").read_bytes())
    except (OSError, ValueError):
        return False  # the engine says what is wrong with it
    return isinstance(config, dict) and bool(config.get("quantization_config"))


def _refused(message: str, param: str) -> ModelError:
    return ModelError(message, param=param)
