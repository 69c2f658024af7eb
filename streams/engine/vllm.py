"""The engine over vLLM: a stream is one resumable request that only ever reads.

vLLM keeps the KV blocks of a request with streaming input allocated between its chunks. A chunk that generates one
token is pure ingest, for the token is dropped when the next chunk arrives. Questions are ordinary requests that find
those blocks through prefix caching.

vLLM, torch and transformers are imported when an engine is loaded and not before, so that the command line is quick.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from streams.engine.accelerators import accelerators
from streams.engine.base import ModelFacts, Piece, Priority, Sampling
from streams.engine.dialect import VllmDialect, hush_parsers
from streams.engine.lasting import lasting
from streams.engine.leash import Leash
from streams.engine.lifeline import Lifelines
from streams.engine.supported import refuse_unsupported
from streams.engine.tokenizer import HfTokenizer
from streams.engine.vllm_plan import planned, size_of, with_blocks
from streams.engine.vllm_requests import asking, piece, reading
from streams.engine.vllm_start import EngineOptions, Parallel, sentence, start
from streams.errors import (
    AskaheadError,
    Conflict,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    ModelError,
)
from streams.footprint import Footprint
from streams.models.plan import Plan
from streams.waiting import uninterrupted

__all__ = ["EngineOptions", "Parallel", "VllmEngine", "VllmHeld"]

_RELEASE_TIMEOUT = 30.0
_END_SECONDS = 2.0
# vLLM tells nobody of its process's death who does not ask it for something.
_WATCH_SECONDS = 0.5


class VllmEngine:
    """An :class:`~streams.engine.base.Engine`. Each rank of the model runs in a process of its own.

    When one rank dies, vLLM ends them all.

    A request that names ``logprob_token_ids`` is told the log-probabilities of these and of the sampled token, in
    place of ``top_logprobs``.
    """

    def __init__(self, llm: Any, tokenizer: HfTokenizer, dialect: VllmDialect, options: EngineOptions) -> None:
        cache, parallel = llm.vllm_config.cache_config, llm.vllm_config.parallel_config
        # vLLM adds up the blocks of all ranks.
        ranks, blocks = parallel.data_parallel_size, cache.num_gpu_blocks // parallel.data_parallel_size
        plan = planned(llm.vllm_config, kv_type=options.kv_cache_type, sessions=options.sessions)
        self._plan = None if plan is None else with_blocks(plan, blocks)
        footprint = Footprint(cache.block_size) if plan is None else plan.footprint
        self._llm = llm
        self._tokenizer = tokenizer
        self._dialect = dialect
        self._facts = ModelFacts(
            name=options.name,
            context=llm.model_config.max_model_len,
            block_size=cache.block_size,
            # One block of each is vLLM's null block, which holds no tokens.
            kv_capacity=(blocks - 1) * cache.block_size,
            ranks=ranks,
            bounds=footprint.bounds,
            states=footprint.states,
            batch_tokens=llm.vllm_config.scheduler_config.max_num_batched_tokens,
            chat_template=tokenizer.template_source,
            size=size_of(plan, llm.model_config, options.kv_cache_type, options.quantization),
            accelerators=accelerators(),
        )
        self._again = replace(
            options, kv_cache_bytes=options.kv_cache_bytes or cache.kv_cache_memory_bytes, blocks=blocks
        )
        self._processes = _processes(llm)
        self._leash = Leash(self.processes)
        self._lifelines: Lifelines | None = None
        if parallel.data_parallel_size_local < ranks and parallel.data_parallel_backend == "mp":
            self._lifelines = Lifelines(
                parallel.data_parallel_master_ip, parallel.data_parallel_rpc_port, self._lose_machine
            )
        self._closed = False
        self._scratch = ExitStack()
        self._serial = itertools.count(1)

    @classmethod
    def load(cls, options: EngineOptions) -> VllmEngine:
        """Load the model. Blocks for 20 to 40 s on a CPU: call it in a thread, with or without a running loop.

        Raises:
            ModelError: the model cannot be loaded this way.
        """
        with lasting(), ExitStack() as stack:
            refuse_unsupported(options.model)
            tokenizer = HfTokenizer.load(options.model, options.chat_template)
            scratch = stack.enter_context(TemporaryDirectory(prefix="askahead-engine-", ignore_cleanup_errors=True))
            try:
                dialect = VllmDialect.load(tokenizer, options.tool_parser, options.reasoning_parser)
                llm = start(options, Path(scratch), dialect.reasoning_parser)
                hush_parsers()
                from streams.engine.vllm_text import forget_prompts

                forget_prompts()
                engine = cls(llm, tokenizer, dialect, options)
                try:
                    # On a GPU only vLLM knows how much memory is left for the KV cache, and only now.
                    if engine.plan is not None:
                        engine.plan.check()
                except ModelError:
                    llm.shutdown()
                    raise
            except AskaheadError:
                raise
            except Exception as exc:
                raise ModelError(f"The model in {options.model} cannot be loaded: {sentence(exc)}") from exc
            engine._scratch = stack.pop_all()
            return engine

    @staticmethod
    def abort_load() -> None:
        """Kill the process of an engine that is being loaded; :meth:`load` then fails within a second or so.

        Harmless before that process exists; not for use once an engine is loaded.
        """
        for process in multiprocessing.active_children():
            if process.name.startswith("EngineCore"):
                process.kill()

    @property
    def again(self) -> EngineOptions:
        """How to load its like, with as much KV cache, whatever memory is free by then."""
        return self._again

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def plan(self) -> Plan | None:
        """The model's size, and what its streams take; None where its config does not tell."""
        return self._plan

    @property
    def tokenizer(self) -> HfTokenizer:
        return self._tokenizer

    @property
    def dialect(self) -> VllmDialect:
        return self._dialect

    @property
    def dead(self) -> bool:
        return self._closed or self._llm.errored

    @property
    def processes(self) -> list[int]:
        """Ids of vLLM's processes on this machine: the ranks, in order, and what else it starts."""
        return [process.pid for process in self._processes]

    async def ready(self) -> None:
        if self.dead:
            raise EngineUnavailable.restarting()

    async def lost(self) -> None:
        while not self.dead:  # noqa: ASYNC110 (vLLM has no event for it)
            await asyncio.sleep(_WATCH_SECONDS)

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> VllmHeld:
        return VllmHeld(self, priority, rank)

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        """See :meth:`streams.engine.base.Engine.generate`.

        Raises:
            InvalidInput: the prompt is empty, vLLM refuses the sampling parameters, or cannot enforce the constraint.
            ContextLengthExceeded: the prompt leaves no room for an answer.
        """
        if not tokens:
            raise InvalidInput("The prompt is empty; send at least one token.", param="prompt")
        if len(tokens) >= self._facts.context:
            raise ContextLengthExceeded(
                f"The prompt has {len(tokens)} tokens, and the model's context of {self._facts.context} must hold it "
                "and at least one token of the answer. Shorten the prompt."
            )
        with self._translated():
            outputs = self._request(
                list(tokens),
                asking(sampling),
                f"ask-{next(self._serial)}",
                priority,
                rank,
                reasoning_ended=sampling.constraint is None or not sampling.constraint.after_reasoning,
            )
            async with aclosing(outputs):
                async for output in outputs:
                    yield piece(output, sampling)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._llm.output_handler is not None:
            # It would report the end of the engine's process as an error.
            self._llm.output_handler.cancel()
            await asyncio.wait([self._llm.output_handler], timeout=_RELEASE_TIMEOUT)
        if self._lifelines is not None:
            self._lifelines.close()
        await asyncio.to_thread(self._shut_down)
        # vLLM leaves its sockets' context, two threads and all, to the garbage collector.
        self._llm.engine_core.resources.ctx.destroy(linger=0)
        # Its finalizer would shut down once more, and fail where the interpreter has begun to take modules apart.
        self._llm.shutdown = lambda: None
        self._leash.release()
        self._scratch.close()

    def _lose_machine(self) -> None:
        """Do as vLLM does when a process of its own has died."""
        core = self._llm.engine_core
        core.resources.engine_dead = True
        core.shutdown()

    def _shut_down(self) -> None:
        # A process that hangs does not end by itself, and vLLM waits for that for longer than a shutdown may take.
        impatient = threading.Timer(_END_SECONDS, self._kill)
        impatient.start()
        try:
            self._llm.shutdown()
        finally:
            impatient.cancel()
        for process in self._processes:
            process.join(_RELEASE_TIMEOUT)  # vLLM does not wait for what it has killed

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _request(
        self,
        prompt: list[int] | AsyncGenerator[Any, None],
        params: Any,
        request_id: str,
        priority: Priority,
        rank: int,
        reasoning_ended: bool | None = None,
    ) -> AsyncGenerator[Any, None]:
        from vllm.inputs import tokens_input

        if self.dead:
            raise EngineUnavailable.restarting()
        source = tokens_input(prompt) if isinstance(prompt, list) else prompt
        outputs: AsyncGenerator[Any, None] = self._llm.generate(
            source,
            params,
            request_id,
            priority=int(priority),
            data_parallel_rank=rank,
            reasoning_ended=reasoning_ended,
        )
        return outputs

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn vLLM's exceptions into those of this project."""
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        try:
            yield
        except VLLMClientError as exc:
            raise InvalidInput(str(exc.args[0]), param=getattr(exc, "parameter", None)) from exc
        except EngineDeadError as exc:
            raise EngineUnavailable.restarting() from exc
        except EngineGenerateError as exc:
            if self.dead:
                raise EngineUnavailable.restarting() from exc
            raise EngineUnavailable("The engine failed on this request; retry it.", retry_after=1.0) from exc


class VllmHeld:
    """A :class:`~streams.engine.base.Held` sequence: one resumable request.

    Calls wait for each other. When :meth:`extend` fails or is cancelled, the blocks are given back and the hold can
    only be released.
    """

    def __init__(self, engine: VllmEngine, priority: Priority, rank: int) -> None:
        self._engine = engine
        self._priority = priority
        self._rank = rank
        self._tokens = 0
        self._cached = 0
        self._chunks: asyncio.Queue[list[int]] = asyncio.Queue(maxsize=1)
        self._outputs: AsyncGenerator[Any, None] | None = None
        self._over = False
        self._lock = asyncio.Lock()

    @property
    def tokens(self) -> int:
        return self._tokens

    @property
    def cached(self) -> int:
        return self._cached

    @property
    def lost(self) -> bool:
        return self._engine.dead

    async def extend(self, tokens: Sequence[int]) -> None:
        """See :meth:`streams.engine.base.Held.extend`.

        Raises:
            ContextLengthExceeded: with these tokens no room for an answer would be left; nothing was done.
            Conflict: the hold was released, or lost when an earlier call failed or was cancelled.
        """
        async with self._lock:
            if not tokens:
                return
            if self._over:
                raise Conflict("These tokens are no longer held; hold the stream again.")
            context, total = self._engine.facts.context, self._tokens + len(tokens)
            if total >= context:
                raise ContextLengthExceeded(
                    f"The stream would have {total} tokens, and the model's context of {context} must hold it and at "
                    "least one token of an answer. Push less, or set a window."
                )
            try:
                with self._engine._translated():
                    if self._outputs is None:
                        self._outputs = self._engine._request(
                            self._feed(), reading(), f"hold-{next(self._engine._serial)}", self._priority, self._rank
                        )
                    self._chunks.put_nowait(list(tokens))
                    output = await anext(self._outputs)
            except BaseException as exc:
                # An exception, cancellation too, ends vLLM's generator, which aborts the request.
                self._over = True
                if isinstance(exc, StopAsyncIteration):
                    raise EngineUnavailable.restarting() from exc
                raise
            if not self._tokens:
                self._cached = output.num_cached_tokens or 0
            self._tokens = total

    async def release(self) -> None:
        """See :meth:`streams.engine.base.Held.release`.

        Raises:
            EngineUnavailable: the engine did not react within 30 s.
        """
        # Cut short, it would leave vLLM with a request that nobody can reach any more.
        await uninterrupted(self._release())

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT), self._lock:
                self._over = True
                if self._outputs is not None:
                    await self._outputs.aclose()
        except TimeoutError as exc:
            raise EngineUnavailable("The engine did not release a stream in time.") from exc
        finally:
            self._tokens = 0

    async def _feed(self) -> AsyncGenerator[Any, None]:
        from vllm.engine.protocol import StreamingInput
        from vllm.inputs import tokens_input

        while True:
            yield StreamingInput(prompt=tokens_input(await self._chunks.get()))


def _processes(llm: Any) -> list[Any]:
    resources = llm.engine_core.resources
    processes = list(getattr(resources.engine_manager, "processes", ()))
    return processes if resources.coordinator is None else [*processes, resources.coordinator.proc]
