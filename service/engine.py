"""The engine that the settings ask for, in the server and where ranks run without one."""

from __future__ import annotations

from service.settings import Settings
from streams.engine.vllm import EngineOptions, Parallel
from streams.models import ResolvedModel


def engine_options(settings: Settings, model: ResolvedModel) -> EngineOptions:
    """How to load ``model``."""
    return EngineOptions(
        model=model.path,
        name=model.name,
        context=settings.context or None,
        dtype=settings.dtype,
        kv_cache_bytes=None if settings.kv_cache_gb is None else int(settings.kv_cache_gb * 2**30),
        threads=settings.threads,
        max_num_seqs=settings.max_sessions + settings.max_questions + settings.flash_concurrency,
        tool_parser=settings.tool_parser,
        reasoning_parser=settings.reasoning_parser,
        parallel=Parallel(
            data=settings.data_parallel_size,
            tensor=settings.tensor_parallel_size,
            pipeline=settings.pipeline_parallel_size,
            local=settings.data_parallel_size_local,
            address=settings.data_parallel_address,
            port=settings.data_parallel_rpc_port,
            backend=settings.data_parallel_backend,
        ),
    )
