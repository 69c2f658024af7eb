"""The engine over llama.cpp. The model runs in a process of its own: a crash there is no more than its death."""

from __future__ import annotations

import asyncio
import itertools
import logging
import multiprocessing
import os
import threading
from array import array
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from streams.engine.base import ModelFacts, Piece, Priority, Sampling
from streams.engine.facts import ModelSize
from streams.engine.recurrent import child, refusals
from streams.engine.recurrent.dialect import PlainDialect
from streams.engine.recurrent.held import RecurrentHeld
from streams.engine.recurrent.model import BATCH_TOKENS
from streams.engine.recurrent.sampling import check
from streams.engine.recurrent.vocabulary import GgufTokenizer, tokenizer_of
from streams.engine.schemas import enforceable
from streams.engine.vllm_start import EngineOptions
from streams.errors import AskaheadError, ContextLengthExceeded, EngineUnavailable, InvalidInput, ModelError
from streams.models.describe import describe

DEFAULT_CONTEXT = 32_768
"""Where none is set. These models have no trained limit; the longer a stream, the longer it takes to read again."""

DEFAULT_STATE_BYTES = 1 << 30
"""Memory for states, where none is set."""

MIN_SEQUENCES = 8

_PROCESS = "llama.cpp"
_STATE_TYPE = "fp32"
_END_SECONDS = 30.0

log = logging.getLogger(__name__)

_Answers = asyncio.Queue[child.Event]


class RecurrentEngine:
    """An :class:`~streams.engine.base.Engine`.

    Half of the states are for streams, the others for questions and for what is worth keeping. More streams than that
    can be held: the least recently used are read again when they are needed.
    """

    def __init__(
        self,
        options: EngineOptions,
        tokenizer: GgufTokenizer,
        process: Any,
        connection: Connection,
        loaded: child.Loaded,
    ) -> None:
        context = options.context or DEFAULT_CONTEXT
        self._again = options
        self._tokenizer = tokenizer
        self._dialect = PlainDialect()
        # A stream takes one state whatever its length: as many tokens as it could ever have.
        capacity = loaded.sequences // 2 * context
        self._facts = ModelFacts(
            options.name,
            context,
            1,
            capacity,
            bounds=(),
            states=context,
            batch_tokens=BATCH_TOKENS,
            chat_template=tokenizer.template_source,
            size=_size(options),
        )
        self._vocabulary = loaded.vocabulary
        self._process = process
        self._connection = connection
        self._serial = itertools.count(1)
        self._death: Future[None] = Future()
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[asyncio.AbstractEventLoop, _Answers]] = {}
        self._thread = threading.Thread(target=self._listen, name="llama.cpp", daemon=True)
        self._thread.start()

    @classmethod
    def load(cls, options: EngineOptions) -> RecurrentEngine:
        """Load the model. Blocks: call it in a thread.

        Raises:
            ModelError: the model cannot be loaded this way.
        """
        refusals.check_options(options)
        tokenizer = tokenizer_of(options.model, options.chat_template)
        setup = child.Setup(
            path=options.model,
            memory=options.kv_cache_bytes or DEFAULT_STATE_BYTES,
            at_most=max(options.max_num_seqs, MIN_SEQUENCES, 2 * (options.sessions or 0)),
            at_least=MIN_SEQUENCES,
            threads=options.threads or len(os.sched_getaffinity(0)),
            nice=options.nice,
            pieces=[tokenizer.token_bytes(i) for i in range(tokenizer.size)],
            hidden=tokenizer.hidden_ids,
            ends=tokenizer.end_ids,
        )
        processes = multiprocessing.get_context("spawn")
        here, there = processes.Pipe()
        process = processes.Process(target=child.main, args=(setup, there), name=_PROCESS, daemon=True)
        process.start()
        there.close()
        # What checks schemas takes seconds to import: now, and not while a request and all others wait for it.
        enforceable({"type": "integer"}, "model")
        try:
            said = here.recv()
        except EOFError:
            process.join()
            said = ModelError(f"The process that loads {options.model} has ended with {process.exitcode}.")
        if isinstance(said, child.Loaded) and said.sequences // 2 < (options.sessions or 0):
            said = refusals.too_few(options.sessions or 0, setup.memory, said)
        if isinstance(said, AskaheadError):
            here.close()
            process.join()
            raise said
        return cls(options, tokenizer, process, here, said)

    @staticmethod
    def abort_load() -> None:
        """Kill the process of an engine that is being loaded; :meth:`load` fails then."""
        for process in multiprocessing.active_children():
            if process.name == _PROCESS:
                process.kill()

    @property
    def again(self) -> EngineOptions:
        """How to load its like."""
        return self._again

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def tokenizer(self) -> GgufTokenizer:
        return self._tokenizer

    @property
    def dialect(self) -> PlainDialect:
        return self._dialect

    @property
    def dead(self) -> bool:
        return self._death.done()

    @property
    def processes(self) -> list[int]:
        """The id of the model's process."""
        return [self._process.pid]

    @property
    def unfinished(self) -> int:
        """Requests that are being worked on."""
        return len(self._requests)

    async def ready(self) -> None:
        if self.dead:
            raise EngineUnavailable.restarting()

    async def lost(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._death))

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> RecurrentHeld:
        return RecurrentHeld(self, priority, next(self._serial))

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        """See :meth:`streams.engine.base.Engine.generate`.

        Raises:
            InvalidInput: the prompt is empty, the sampling makes no sense, or the constraint cannot be enforced.
            ContextLengthExceeded: the prompt leaves no room for an answer.
        """
        self._refuse(tokens, sampling)
        room = min(sampling.max_tokens, self._facts.context - len(tokens))
        with self.request() as (number, answers):
            self.tell(child.Ask(number, priority, array("i", tokens), sampling, room))
            finished = False
            while not finished:
                piece = await answers.get()
                if not isinstance(piece, Piece):
                    raise piece if isinstance(piece, AskaheadError) else TypeError(piece)
                finished = piece.finish_reason is not None
                yield piece

    async def close(self) -> None:
        self._process.kill()
        await asyncio.to_thread(self._ended)

    def _ended(self) -> None:
        self._process.join(_END_SECONDS)
        self._thread.join(_END_SECONDS)

    @contextmanager
    def request(self) -> Iterator[tuple[int, _Answers]]:
        """A number, and what comes back to it. Leaving cancels the request, if it has not ended.

        Raises:
            EngineUnavailable: the engine is dead.
        """
        number, answers = next(self._serial), _Answers()
        with self._lock:
            if self.dead:
                raise EngineUnavailable.restarting()
            self._requests[number] = asyncio.get_running_loop(), answers
        try:
            yield number, answers
        finally:
            with self._lock:
                del self._requests[number]
            self.tell(child.Cancel(number))

    def tell(self, order: child.Order) -> None:
        """Send an order; to nobody, if the process has died."""
        with suppress(OSError):
            self._connection.send(order)

    def _listen(self) -> None:
        try:
            while True:
                for number, event in self._connection.recv():
                    self._answer(number, event)
        except (EOFError, OSError):
            with self._lock:
                self._death.set_result(None)
                pending = list(self._requests)
            for number in pending:
                self._answer(number, EngineUnavailable.restarting())
            self._connection.close()

    def _answer(self, number: int, event: child.Event) -> None:
        with self._lock:
            loop, answers = self._requests.get(number, (None, None))
        if loop is not None and answers is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(answers.put_nowait, event)

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Refuse tokens that the model does not have."""
        if tokens and not 0 <= min(tokens) <= max(tokens) < self._vocabulary:
            raise InvalidInput(f"Tokens are numbered from 0 to {self._vocabulary - 1}.", param="prompt")

    def _refuse(self, tokens: Sequence[int], sampling: Sampling) -> None:
        if not tokens:
            raise InvalidInput("The prompt is empty; send at least one token.", param="prompt")
        if len(tokens) >= self._facts.context:
            raise ContextLengthExceeded(
                f"The prompt has {len(tokens)} tokens, and the context of {self._facts.context} must hold it and at "
                "least one token of the answer. Shorten the prompt."
            )
        self.check_tokens(tokens)
        check(sampling, self._vocabulary)


def _size(options: EngineOptions) -> ModelSize:
    try:
        described = describe(str(options.model), progress=log.info)
    except ModelError:  # an architecture that llama.cpp knows, and nothing here
        return ModelSize(kv_type=_STATE_TYPE)
    return ModelSize.of(described.shape, weights=described.stored, kv_type=_STATE_TYPE)
