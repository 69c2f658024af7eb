"""A recurrent model and the states of its sequences. Not for use by several threads at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streams.engine.recurrent import library as lib
from streams.errors import ModelError

BATCH_TOKENS = 512
"""Tokens computed in one step at most. A step runs to its end: this bounds how long a question waits behind one."""

MAX_SEQUENCES = 256
"""llama.cpp's own limit."""

Logits = NDArray[np.float32]


class Work(NamedTuple):
    """Tokens to append to a sequence that has ``position`` tokens. With ``logits``, those after the last are wanted."""

    sequence: int
    position: int
    tokens: Sequence[int]
    logits: bool


class Model:
    """A model whose sequences, numbered from 0, each have a state of the same size.

    Attributes:
        vocabulary: rows of the model's output.
        state_bytes: size of a state.
        sequences: how many there are.
    """

    def __init__(self, path: Path, *, memory: int, at_most: int, at_least: int, threads: int) -> None:
        """Load it.

        Args:
            path: GGUF file.
            memory: bytes for states.
            at_most, at_least: sequences.
            threads: of the CPU.

        Raises:
            ModelError: the file cannot be loaded or is no recurrent model, or the memory is too little.
        """
        self._lib: Any = lib.library()
        self._model = self._lib.llama_model_load_from_file(str(path).encode(), self._lib.llama_model_default_params())
        if not self._model:
            raise ModelError(f"{path} cannot be loaded: {lib.last_error or 'llama.cpp refuses it'}", param="model")
        if not self._lib.llama_model_is_recurrent(self._model):
            raise ModelError(f"{path} is not a recurrent model.", param="model")
        self.vocabulary: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self.state_bytes = self._measure(threads)
        self.sequences = min(memory // self.state_bytes, at_most, MAX_SEQUENCES)
        if self.sequences < at_least:
            raise ModelError(
                f"{memory / 2**20:.0f} MiB hold {self.sequences} states of {self.state_bytes / 2**20:.2f} MiB, and "
                f"{at_least} are the least: set --kv-cache-gb to {at_least * self.state_bytes / 2**30:.3f} or more.",
                param="kv_cache_gb",
            )
        self._open(self.sequences, threads)
        self._batch = self._lib.llama_batch_init(BATCH_TOKENS, 0, 1)

    def _open(self, sequences: int, threads: int) -> None:
        params = self._lib.llama_context_default_params()
        # A state has no length; the context only has to be divisible among the sequences.
        params[lib.N_CTX] = 256 * sequences
        params[lib.N_BATCH] = params[lib.N_UBATCH] = BATCH_TOKENS
        params[lib.N_SEQ_MAX] = sequences
        params[lib.N_THREADS] = params[lib.N_THREADS_BATCH] = threads
        self._context = self._lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise ModelError(f"There is no memory for {sequences} states: {lib.last_error}", param="kv_cache_gb")
        self._memory = self._lib.llama_get_memory(self._context)

    def _measure(self, threads: int) -> int:
        self._open(1, threads)
        self._batch = self._lib.llama_batch_init(1, 0, 1)
        self.decode([Work(0, 0, [0], True)])
        size: int = self._lib.llama_state_seq_get_size(self._context, 0)
        self._lib.llama_free(self._context)
        return size

    def decode(self, works: Sequence[Work]) -> list[Logits | None]:
        """Append tokens to sequences, each of which is named once: at most :data:`BATCH_TOKENS` in all.

        Returns:
            For each, the logits after its last token, float32, one for each row of the vocabulary; None where they
            were not wanted.

        Raises:
            RuntimeError: the library failed; the states are not to be used any more.
        """
        batch, row, last = self._batch, 0, []
        for work in works:
            for i, token in enumerate(work.tokens):
                batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, work.position + i, 1
                batch.seq_id[row][0], batch.logits[row] = work.sequence, 0
                row += 1
            batch.logits[row - 1] = work.logits
            last.append(row - 1)
        batch.n_tokens = row
        if code := self._lib.llama_decode(self._context, batch):
            raise RuntimeError(f"llama.cpp failed with {code}: {lib.last_error}")
        return [
            np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, at), (self.vocabulary,)).copy()
            if work.logits
            else None
            for at, work in zip(last, works, strict=True)
        ]

    def copy(self, source: int, target: int) -> None:
        """Give a sequence the state of another. Takes no time: the state is copied when one of them changes."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def clear(self, sequence: int) -> None:
        """Give a sequence the state before the first token."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
