"""The vLLM worker for CPUs. Imported by vLLM inside the engine's own process, and by nothing else."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait

import torch
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler
from vllm.v1.worker.cpu_worker import CPUWorker


class _RowSampler(Sampler):  # type: ignore[misc]  # vLLM ships no types
    """Gives each request of a batch the log-probabilities it asked for itself.

    vLLM's own sampler answers a whole batch with the columns of ``logprob_token_ids`` as soon as one request in it
    names any, so that a neighbour that asked for its top tokens is handed ``-inf``.
    """

    def forward(
        self, logits: torch.Tensor, sampling_metadata: SamplingMetadata, *args: object, **kwargs: object
    ) -> SamplerOutput:
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
        ids = _widen(top.logprob_token_ids, width, 0)
        logprobs = _widen(top.logprobs, width, float("-inf"))
        ids[rows] = _widen(asked.logprob_token_ids, width, 0)[rows]
        logprobs[rows] = _widen(asked.logprobs, width, float("-inf"))[rows]
        output.logprobs_tensors = LogprobsTensors(
            logprob_token_ids=ids, logprobs=logprobs, selected_token_ranks=top.selected_token_ranks
        )
        return output


class Worker(CPUWorker):  # type: ignore[misc]  # vLLM ships no types
    """vLLM's CPU worker with per-request log-probabilities, which never outlives the server."""

    def init_device(self) -> None:
        super().init_device()
        sampler = self.model_runner.sampler
        self.model_runner.sampler = _RowSampler(sampler.logprobs_mode, sampler.use_fp64_gumbel)
        _exit_with_parent()


def _widen(columns: torch.Tensor, width: int, fill: float) -> torch.Tensor:
    return torch.nn.functional.pad(columns, (0, width - columns.shape[1]), value=fill)


def _exit_with_parent() -> None:
    """A server killed with SIGKILL cannot stop its engine, and an orphan would keep the memory of model and cache."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), name="parent-watch", daemon=True).start()
