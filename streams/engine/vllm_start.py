"""Starting vLLM: what is asked of it on a CPU and on a GPU, and the environment its processes are born into."""

from __future__ import annotations

import itertools
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from streams.engine import core_process
from streams.engine.huge_pages import into_huge_pages
from streams.engine.vllm_formats import kv_cache_arguments, offload_arguments, quantization_arguments
from streams.engine.vllm_plan import planned
from streams.errors import ModelError
from streams.memory import within_group
from streams.models.plan import GIB, KvType

log = logging.getLogger(__name__)

_CPU_BLOCK_SIZE = 32
# A step runs to its end: this bounds how long a question waits behind a wave of Flash Queries.
_CPU_BATCH_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """How many workers share the model. The names are vLLM's.

    Attributes:
        data: ranks: copies of the model, each with a KV cache of its own.
        tensor: workers of a rank that share each of its layers.
        pipeline: workers of a rank that share its layers among each other.
        local: ranks on this machine; None for all of them.
        address: of the server's machine, as other machines reach it.
        port: where the server waits for their ranks.
        backend: who starts the ranks of other machines: "mp" leaves it to a command there, "ray" is a Ray cluster.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    local: int | None = None
    address: str | None = None
    port: int | None = None
    backend: Literal["mp", "ray"] = "mp"

    @property
    def workers(self) -> int:
        """Workers of each rank."""
        return self.tensor * self.pipeline

    @property
    def here(self) -> int:
        """Ranks on this machine."""
        return self.data if self.local is None else self.local

    def arguments(self) -> dict[str, Any]:
        """As vLLM's engine arguments."""
        return {
            "data_parallel_size": self.data,
            "tensor_parallel_size": self.tensor,
            "pipeline_parallel_size": self.pipeline,
            "data_parallel_size_local": self.local,
            "data_parallel_address": self.address,
            "data_parallel_rpc_port": self.port,
            "data_parallel_backend": self.backend,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How to load a model.

    Attributes:
        model: directory with the weights, ``config.json`` and the tokenizer; a recurrent model's GGUF file.
        name: the name clients see.
        context: longest sequence in tokens; None for the length the model was trained for.
        dtype: "auto" is the model's own on a GPU; on a CPU bfloat16 where it has instructions for it, else float32,
            which is four times faster there than emulated bfloat16.
        kv_cache_bytes: size of the KV cache, on each rank. None takes a quarter of the available memory and at most
            4 GiB on a CPU, shared among the machine's ranks, and vLLM's share of the memory on a GPU.
        kv_cache_type: number format of the KV cache; "auto" and "fp16" are the model's own.
        sessions: streams of a whole context that must fit; None to load the model however few do.
        quantization: number format of the weights: a name of vLLM's, or int8 or int4; None for the checkpoint's own.
        cpu_offload_gb: GiB of weights that stay in the machine's memory, for each worker with a GPU.
        blocks: KV cache of each rank in blocks; None for as many as the memory set aside for it holds.
        threads: CPU threads of each rank; None for ``OMP_NUM_THREADS``, or else its share of the cores that the
            process may use.
        nice: how far a CPU's threads give way to those of other programs, 0 to 19.
        block_size: tokens per KV block; None for 32 on a CPU and vLLM's default on a GPU. A question recomputes up to
            a block, so smaller is faster; a CPU wants a multiple of 32.
        max_num_seqs: streams held plus requests running at once, on each rank.
        max_num_batched_tokens: tokens computed in one step at most; None for 512 on a CPU, or ``max_num_seqs`` where
            that is more, and vLLM's default on a GPU.
        chat_template: a Jinja template in place of the model's own.
        tool_parser: vLLM's name for how the model writes calls; None to tell from the chat template, "none" for none.
        reasoning_parser: the same for how it writes its reasoning.
        parallel: how many workers share the model.
    """

    model: Path
    name: str
    context: int | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    kv_cache_bytes: int | None = None
    kv_cache_type: KvType = "auto"
    sessions: int | None = None
    quantization: str | None = None
    cpu_offload_gb: float = 0.0
    blocks: int | None = None
    threads: int | None = None
    nice: int = 0
    block_size: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    chat_template: str | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    parallel: Parallel = Parallel()


def start(options: EngineOptions, scratch: Path, reasoning_parser: str | None = None) -> Any:
    """A running ``AsyncLLM``. Blocks.

    Args:
        options: what to load, and how.
        scratch: see :func:`configured`.
        reasoning_parser: tells where reasoning ends, for constraints to begin there.

    Raises:
        ModelError: the model does not fit, or it or a format is not to be had here.
        Exception: whatever vLLM raises when it cannot load the model.
    """
    with configured(options, scratch, reasoning_parser) as config:
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        if current_platform.is_cpu() and (config.model_config.is_hybrid or config.model_config.is_attention_free):
            raise ModelError(
                f"{options.name} has state-space layers, which vLLM's CPU build cannot run; name a GGUF file of RWKV or"
                " Mamba, which llama.cpp runs, another model, or a machine with a GPU.",
                param="model",
            )
        with ThreadPoolExecutor(1, "huge-pages") as beside:
            # What vLLM's import leaves is there, and this process now waits for the engine's.
            moving = beside.submit(into_huge_pages)
            llm = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
            moving.result()
        return llm


@contextmanager
def configured(
    options: EngineOptions,
    scratch: Path,
    reasoning_parser: str | None = None,
    *,
    headless_from: int | None = None,
) -> Iterator[Any]:
    """vLLM's configuration, and the environment to start its processes in.

    Args:
        options: what to load, and how.
        scratch: where its processes keep sockets and what else is of no use after them; vLLM removes none of it.
        reasoning_parser: see :func:`start`.
        headless_from: the first rank of this machine, where the server is on another.

    Raises:
        ModelError: the model does not fit, or a format is not to be had here.
        Exception: whatever vLLM raises when it refuses the options.
    """
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read on import
    from vllm import AsyncEngineArgs
    from vllm.config import KVTransferConfig
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.platforms import current_platform

    cpu = current_platform.is_cpu()
    here = max(1, options.parallel.here)
    arguments: dict[str, Any] = {
        **options.parallel.arguments(),
        **kv_cache_arguments(options.kv_cache_type, cpu=cpu, flags=_processor_flags()),
        **quantization_arguments(options.quantization, options.model, QUANTIZATION_METHODS),
        **offload_arguments(options.cpu_offload_gb, cpu=cpu),
        "data_parallel_start_rank": headless_from,
        "model": str(options.model),
        "served_model_name": options.name,
        "dtype": options.dtype,
        "max_model_len": options.context,
        "kv_cache_memory_bytes": options.kv_cache_bytes,
        "num_gpu_blocks_override": options.blocks,
        "block_size": options.block_size,
        "max_num_seqs": options.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "enable_prefix_caching": True,
        "structured_outputs_config": {
            # The only backend that knows structural tags; small models would fill a reply with white space.
            "backend": "xgrammar",
            "disable_any_whitespace": True,
            "reasoning_parser": reasoning_parser or "",
        },
        "scheduling_policy": "priority",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    # Telemetry is the operator's choice to make.
    environment = {"VLLM_NO_USAGE_STATS": "1", "VLLM_RPC_BASE_PATH": str(scratch), "TMPDIR": str(scratch)}
    if cpu:
        arguments |= {
            "dtype": _cpu_dtype() if options.dtype == "auto" else options.dtype,
            "kv_cache_memory_bytes": options.kv_cache_bytes or min(4 * GIB, _available_memory() // 4) // here,
            "block_size": options.block_size or _CPU_BLOCK_SIZE,
            "max_num_batched_tokens": options.max_num_batched_tokens or max(_CPU_BATCH_TOKENS, options.max_num_seqs),
            "enforce_eager": True,
            "worker_cls": "streams.engine.cpu_worker.Worker",
            "additional_config": {"nice": options.nice},
            "kv_transfer_config": KVTransferConfig(
                kv_connector="TailConnector",
                kv_connector_module_path="streams.engine.vllm_tail",
                # Copies are made in the worker between two steps: nothing has to be kept for them, as for a consumer's.
                kv_role="kv_producer",
            ),
        }
        environment |= {
            # Lets the model run in the engine's process itself: a worker apart busy-waits a second after every step.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "OMP_NUM_THREADS": str(options.threads or max(1, len(_cores()) // here)),
            # One helper of vLLM's sampler is compiled even in eager mode, on the first request, in twelve seconds.
            "TORCH_COMPILE_DISABLE": "1",
            # Weights and KV cache in huge pages, where the system leaves that to programs: each step reads them all.
            "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
            "TORCH_CPP_LOG_LEVEL": "ERROR",
            "PYTHONWARNINGS": "ignore",
        }
        if options.parallel.workers == 1:
            arguments["distributed_executor_backend"] = "uni"
        if here * options.parallel.workers > 1:
            # Of itself vLLM wants a NUMA node for each worker.
            environment["VLLM_CPU_OMP_THREADS_BIND"] = _shares(here * options.parallel.workers, options.threads)
        if options.threads is not None:
            os.environ.pop("OMP_NUM_THREADS", None)
    with _environment(environment), _interrupts_blocked():
        # The server's logging is not in that process, so vLLM's own has to keep its remarks back there.
        os.environ.pop("VLLM_CONFIGURE_LOGGING", None)
        config = AsyncEngineArgs(**arguments).create_engine_config(headless=headless_from is not None)
        plan = planned(config, kv_type=options.kv_cache_type, sessions=options.sessions)
        if plan is not None:
            log.info("%s", plan.sentence())
            plan.check()
        from vllm.v1.engine.core import EngineCoreProc

        EngineCoreProc.run_engine_core = staticmethod(core_process.run)
        yield config


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set variables, where the user did not, while the engine's processes start; undo vLLM's own changes as well."""
    before = dict(os.environ)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Start processes that ignore Ctrl-C, which a terminal sends to all: the server must be able to drain first."""
    resource_tracker.ensure_running()  # starting it later would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def _shares(workers: int, threads: int | None) -> str:
    """The cores of each worker, as vLLM wants them. Where there are too few, workers share them."""
    cores = _cores()
    size = threads or max(1, len(cores) // workers)
    spread = itertools.cycle(map(str, cores))
    return "|".join(",".join(itertools.islice(spread, min(size, len(cores)))) for _ in range(workers))


def _available_memory() -> int:
    from vllm.utils.cpu_resource_utils import get_memory_node_info

    return within_group(get_memory_node_info().available_memory)


def _cpu_dtype() -> str:
    """bfloat16 where the processor computes with it, float32 where it would be emulated."""
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"} & _processor_flags() else "float32"


def _processor_flags() -> set[str]:
    flags = Path("/proc/cpuinfo")
    return set(flags.read_text().split()) if flags.exists() else set()


def sentence(exc: BaseException) -> str:
    """The first line of an exception's message, or its class where it has none."""
    text = str(exc.errors()[0]["msg"] if isinstance(exc, ValidationError) else exc).strip()
    return text.splitlines()[0] if text else type(exc).__name__
