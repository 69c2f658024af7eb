"""The vLLM worker for CPUs. Imported by vLLM inside the engine's own process, and by nothing else."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from types import MappingProxyType
from typing import Any

import torch
from vllm.utils.cpu_resource_utils import parse_id_list
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.cpu_worker import CPUWorker

from streams.engine.attention import own_attention
from streams.engine.giving_way import give_way
from streams.engine.narrow import narrow_weights
from streams.engine.operators import call_directly, few_sizes, fewer_operators


class _RowSampler(Sampler):  # type: ignore[misc]  # vLLM ships no types
    """Gives each request of a batch the log-probabilities it asked for itself.

    vLLM's own sampler answers a whole batch with the columns of ``logprob_token_ids`` as soon as one request in it
    names any, so that a neighbour that asked for its top tokens is handed ``-inf``.

    Attributes:
        states: of the random generators of seeded requests, by row, before the last step.
    """

    states: Mapping[int, torch.Tensor] = MappingProxyType({})

    def forward(
        self, logits: torch.Tensor, sampling_metadata: SamplingMetadata, *args: object, **kwargs: object
    ) -> SamplerOutput:
        self.states = {row: generator.get_state() for row, generator in sampling_metadata.generators.items()}
        named = sampling_metadata.logprob_token_ids
        if not named or sampling_metadata.max_num_logprobs is None:
            return super().forward(logits, sampling_metadata, *args, **kwargs)
        raw = self.compute_logprobs(logits)  # now, for sampling changes the logits in place
        sampling_metadata.logprob_token_ids = None
        try:
            output = super().forward(logits, sampling_metadata, *args, **kwargs)
        finally:
            sampling_metadata.logprob_token_ids = named
        top = output.logprobs_tensors
        asked = self.gather_specific_token_logprobs(raw, named, output.sampled_token_ids[:, 0].long())
        rows = torch.tensor(sorted(named))
        width = max(top.logprobs.shape[1], asked.logprobs.shape[1])
        ids, logprobs = _widen(top.logprob_token_ids, width), _widen(top.logprobs, width)
        ids[rows] = _widen(asked.logprob_token_ids, width)[rows]
        logprobs[rows] = _widen(asked.logprobs, width)[rows]
        output.logprobs_tensors = LogprobsTensors(
            logprob_token_ids=ids, logprobs=logprobs, selected_token_ranks=top.selected_token_ranks
        )
        return output


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM ships no types
    """vLLM's CPU worker with per-request log-probabilities and seeds, which never outlives the server.

    Ranks of one machine keep to cores of their own, and so to the memory that is near them.
    """

    def __init__(self, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
        parallel = vllm_config.parallel_config
        if parallel.world_size == 1 and parallel.data_parallel_rank_local is not None:
            _keep_to_share(parallel.data_parallel_rank_local)
        super().__init__(vllm_config, *args, **kwargs)

    def load_model(self, **options: Any) -> None:
        with narrow_weights(), own_attention(), fewer_operators():
            super().load_model(**options)
        call_directly(self.model_runner.get_model())
        few_sizes()

    def compile_or_warm_up_model(self) -> Any:
        # The last thing that is done before the first request.
        times = super().compile_or_warm_up_model()
        give_way(self.vllm_config.additional_config["nice"])
        return times

    def init_device(self) -> None:
        super().init_device()
        sampler = self.model_runner.sampler
        self.model_runner.sampler = _RowSampler(sampler.logprobs_mode, sampler.use_fp64_gumbel)
        _rewind_by_state(self.model_runner, self.model_runner.sampler)
        _exit_with_parent()


def _keep_to_share(rank: int) -> None:
    """Bind this thread, and those that it starts, to the rank's cores. vLLM does it for workers apart only."""
    # Not set where the machine has one rank; "auto" and "nobind" name no cores.
    shares = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "").split("|")
    if len(shares) > rank and shares[rank][:1].isdigit():
        os.sched_setaffinity(0, parse_id_list(shares[rank]))


def _rewind_by_state(runner: Any, sampler: _RowSampler) -> None:
    """Take back, the way a CPU's generators allow, what seeded requests drew in a step that only read their prompt.

    vLLM does that by offset, which a CPU's generator refuses, and so a seeded request whose prompt took more than one
    step ended the engine.
    """
    bookkeeping = runner._bookkeeping_sync

    def rewinding(*args: object, **kwargs: object) -> Any:
        generators = runner.input_batch.generators
        discarded = runner.discard_request_mask.np[: runner.input_batch.num_reqs].nonzero()[0]
        rewound = {row: generators.pop(row) for row in map(int, discarded) if row in generators}
        for row, generator in rewound.items():
            if row in sampler.states:
                generator.set_state(sampler.states[row])
        try:
            return bookkeeping(*args, **kwargs)
        finally:
            generators.update(rewound)

    runner._bookkeeping_sync = rewinding


def _widen(columns: torch.Tensor, width: int) -> torch.Tensor:
    """Fill up with the sampled token, the first: it says nothing new, and any other would be taken for a real one."""
    return torch.cat([columns, columns[:, :1].expand(-1, width - columns.shape[1])], dim=1)


def _exit_with_parent() -> None:
    """A server killed with SIGKILL cannot stop its engine, and an orphan would keep the memory of model and cache."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), name="parent-watch", daemon=True).start()
