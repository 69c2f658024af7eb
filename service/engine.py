"""The engine that the settings ask for, in the server and where ranks run without one."""

from __future__ import annotations

import logging

from service.settings import Settings
from streams.engine import choose
from streams.engine.headless import run_ranks
from streams.engine.vllm import EngineOptions, Parallel
from streams.errors import InvalidInput
from streams.models import ResolvedModel, resolve

log = logging.getLogger(__name__)


def resolved_model(settings: Settings) -> ResolvedModel:
    """The model that the settings name, fetched or converted if need be. Blocks, for minutes when it must download.

    Raises:
        ModelError: there is no such model, or it cannot be fetched, read or converted.
    """
    found = resolve(
        settings.model,
        data_dir=settings.data_dir,
        models_dir=settings.models_dir,
        revision=settings.revision,
        progress=log.info,
    )
    return choose.prepared(found, settings.models_dir or settings.data_dir / "models", log.info)


def max_sequences(settings: Settings) -> int:
    """Streams held and requests running at once, at most."""
    return settings.max_sessions + settings.max_questions + settings.flash_concurrency


def engine_options(settings: Settings, model: ResolvedModel) -> EngineOptions:
    """How to load ``model``."""
    return EngineOptions(
        model=model.path,
        name=model.name,
        context=settings.context or None,
        dtype=settings.dtype,
        kv_cache_bytes=None if settings.kv_cache_gb is None else int(settings.kv_cache_gb * 2**30),
        kv_cache_type=settings.kv_cache_type,
        sessions=settings.sessions,
        quantization=settings.quantization,
        cpu_offload_gb=settings.cpu_offload_gb,
        threads=settings.threads,
        nice=settings.engine_nice,
        max_num_seqs=max_sequences(settings),
        chat_template=settings.chat_template,
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


def run_here(settings: Settings, first: int) -> None:
    """Run this machine's ranks, from number ``first`` on, until SIGTERM. Blocks.

    Raises:
        InvalidInput: the settings leave no ranks to this machine, or do not say where the server is.
        AskaheadError: the model cannot be loaded, a rank has died, or the server is gone.
    """
    others = settings.data_parallel_size - first
    if settings.data_parallel_address is None or (settings.data_parallel_size_local or others) not in range(
        1, others + 1
    ):
        raise InvalidInput(
            "ranks without a server need --data-parallel-address, where the server is, and a --data-parallel-size that"
            " counts them and those before them"
        )
    run_ranks(engine_options(settings, resolved_model(settings)), first)
