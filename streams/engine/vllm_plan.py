"""The plan of a model that vLLM is about to load, or has loaded."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from streams.engine.facts import ModelSize
from streams.errors import ModelError
from streams.models.plan import GIB, Cache, KvType, Plan
from streams.models.shape import Shape

log = logging.getLogger(__name__)

# torch's names of number formats, and those that are known for a KV cache.
_DTYPES = {"torch.float32": "fp32", "torch.bfloat16": "bf16", "torch.float16": "fp16"}


def planned(config: Any, *, kv_type: KvType, sessions: int | None) -> Plan | None:
    """The plan by vLLM's configuration; None for a model whose size cannot be told from its config.

    Args:
        config: vLLM's.
        kv_type: number format of the KV cache.
        sessions: streams of a whole context that must fit.
    """
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    try:
        shape = Shape.of(model.hf_text_config.to_dict())
    except ModelError as unknown:
        log.info("no plan for this model: %s", unknown.message)
        return None
    plan = Plan(
        name=model.served_model_name,
        shape=shape,
        weights=_weights(model, shape),
        context=model.max_model_len,
        cache=Cache(
            kv_type=kv_type,
            item_size=model.dtype.itemsize,
            block_size=cache.block_size,
            batch=config.max_in_flight_tokens,
            tensor=parallel.tensor_parallel_size,
            pipeline=parallel.pipeline_parallel_size,
        ),
        pool=cache.kv_cache_memory_bytes,
        memory=_memory(parallel, int(config.offload_config.uva.cpu_offload_gb * GIB)),
        sessions=sessions,
    )
    if cache.num_gpu_blocks_override is not None:
        return with_blocks(plan, cache.num_gpu_blocks_override)
    return plan


def size_of(plan: Plan | None, model: Any, kv_type: KvType, quantization: str | None) -> ModelSize:
    """How large the model is, as far as its plan tells.

    Args:
        plan: see :func:`planned`.
        model: vLLM's configuration of the model.
        kv_type: number format of the KV cache.
        quantization: that of the weights, if it was asked for.
    """
    kept = _DTYPES.get(str(model.dtype)) if kv_type in ("auto", "fp16") else kv_type
    quantization = quantization or model.quantization
    if plan is None:
        return ModelSize(kv_type=kept, quantization=quantization)
    return ModelSize.of(plan.shape, weights=plan.weights, kv_type=kept, quantization=quantization)


def with_blocks(plan: Plan, blocks: int) -> Plan:
    """The plan with as many blocks as there are, of each rank, in place of an amount of memory."""
    return replace(plan, pool=blocks * plan.block_bytes)


def _weights(model: Any, shape: Shape) -> int:
    if model.quantization is not None:
        stored = sum(file.stat().st_size for file in Path(model.model).glob("*.safetensors"))
        if stored:
            return stored
    return int(shape.parameters * model.dtype.itemsize)


def _memory(parallel: Any, offload: int) -> int:
    """Bytes that a worker has for weights and KV cache."""
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        here = max(1, parallel.data_parallel_size_local) * parallel.world_size
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // here)
    return int(current_platform.get_device_total_memory()) + offload
