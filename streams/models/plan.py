"""Whether a model fits: its weights, what its streams take of the KV cache, and how many find room. Pure, no I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from streams.errors import ModelError
from streams.footprint import Footprint
from streams.models.shape import Attention, Shape, State

GIB = 1 << 30

BITS: Mapping[str, float] = {
    "F16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_K_M": 5.69,
    "Q4_K_M": 4.83,
    "Q4_0": 4.55,
    "Q2_K": 2.96,
    "fp8, int8": 8.0,
    "awq, gptq": 4.25,
}
"""Bits per weight of each format, scales included and averaged over a file: some of its tensors are kept finer."""

KvType = Literal["auto", "fp16", "fp8", "int8", "int4"]
_KV_ALIASES = {"f16": "fp16", "q8_0": "int8", "q4_0": "int4"}
_KV_BYTES: Mapping[KvType, float] = {"fp8": 1.0, "int8": 1.0, "int4": 0.5}
# Of each head of each token, for its keys and for its values.
_SCALE_BYTES: Mapping[KvType, int] = {"int8": 4, "int4": 4}

# What the engine takes of a GPU's memory, and how much of that a batch needs while it is computed.
_GPU_SHARE, _GPU_WORK = 0.92, 3 * GIB // 2
# Layers of one group take blocks together, so groups of about the same size are made the same size.
_ALIKE = 1.5


def weight_bytes(parameters: int, level: str) -> int:
    """Size of the weights in a format of :data:`BITS`."""
    return int(parameters * BITS[level] / 8)


def kv_type(name: object) -> object:
    """The name of a number format of the KV cache by any of its names; what is none stays as it is."""
    return _KV_ALIASES.get(name.lower(), name.lower()) if isinstance(name, str) else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """How the engine keeps its KV cache.

    Attributes:
        kv_type: number format; "auto" and "fp16" are the model's own.
        item_size: bytes of a number in the model's own format.
        block_size: tokens per block.
        batch: tokens computed at once, which stay until they are computed though they are beyond a window.
        states: recurrent states of a stream. vLLM keeps one where the last whole block ended and one where the stream
            ends now, and begins a third.
        tensor, pipeline: workers that share each layer, and workers that share the layers among each other.
    """

    kv_type: KvType = "auto"
    item_size: int = 2
    block_size: int = 16
    batch: int = 2048
    states: int = 3
    tensor: int = 1
    pipeline: int = 1

    def page(self, kept: Attention | State, block_size: int) -> int:
        """Bytes that one layer keeps in a block, on one worker."""
        if isinstance(kept, State):
            return -(-kept.numbers // self.tensor) * (kept.item_size or self.item_size)
        # A head cannot be shared: workers beyond the heads have copies.
        heads = max(1, kept.heads // self.tensor)
        numbers = heads * kept.size * _KV_BYTES.get(self.kv_type, float(self.item_size))
        scales = 2 * heads * _SCALE_BYTES.get(self.kv_type, 0) if kept.heads else 0
        return int(block_size * (numbers + scales))

    def layout(self, shape: Shape) -> tuple[Footprint, int]:
        """What a sequence takes of the blocks, and the bytes of a block on one worker.

        Layers that keep alike are groups of as many layers each, so that a block of any group has the same size.
        """
        states = [part for part in shape.kept if isinstance(part, State)]
        tokens = [part for part in shape.kept if isinstance(part, Attention)]
        block = self.block_size
        if states and tokens:
            # A block of tokens is made as large as a state.
            state = max(self.page(part, 0) for part in states)
            block *= -(-state // min(self.page(part, block) for part in tokens))
        layers = [-(-part.layers // self.pipeline) for part in shape.kept]
        group = max(layers) if max(layers) < _ALIKE * min(layers) else min(layers)
        bounds: list[int | None] = []
        held = 0
        for part, count in zip(shape.kept, layers, strict=True):
            groups = -(-count // group)
            if isinstance(part, State):
                held += groups * self.states
            else:
                bounds += [self._bound(part.window, block)] * groups
        page = max(self.page(part, block) for part in shape.kept)
        return Footprint(block, tuple(bounds), held), group * page

    def _bound(self, window: int | None, block: int) -> int | None:
        # A window begins anywhere in a block.
        return None if window is None else -(-(window - 1 + self.batch) // block) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A model on a machine.

    Attributes:
        name: the model's.
        shape: its size.
        weights: bytes of its weights, as they will be loaded.
        context: longest sequence, in tokens.
        cache: how the engine keeps its KV cache.
        pool: bytes for that on each worker; None where nobody knows yet.
        memory: bytes that weights and KV cache of each worker share; None where nobody knows.
        sessions: streams of a whole context that must fit.
    """

    name: str
    shape: Shape
    weights: int
    context: int
    cache: Cache
    pool: int | None = None
    memory: int | None = None
    sessions: int | None = None

    @property
    def footprint(self) -> Footprint:
        """What a sequence takes of the blocks."""
        return self.cache.layout(self.shape)[0]

    @property
    def block_bytes(self) -> int:
        """Bytes of a block, on each worker."""
        return self.cache.layout(self.shape)[1]

    @property
    def token_bytes(self) -> float:
        """Bytes that one token more takes where no window has been passed."""
        footprint = self.footprint
        return len(footprint.bounds) * self.block_bytes / footprint.block_size

    @property
    def later_token_bytes(self) -> float:
        """The same beyond all windows."""
        footprint = self.footprint
        return footprint.bounds.count(None) * self.block_bytes / footprint.block_size

    def stream_bytes(self, tokens: int) -> int:
        """Bytes that a stream of so many tokens takes."""
        return self.footprint.blocks(tokens) * self.block_bytes

    def needed(self, sessions: int = 0) -> int:
        """Bytes of KV cache for that many streams of a whole context and a question beside them.

        For none, those without which no stream or question of a whole context could be computed.
        """
        # One block is never given to anybody.
        return (self.footprint.blocks(self.context) * (sessions + 1) + 1) * self.block_bytes

    @property
    def blocks(self) -> int | None:
        """Blocks that sequences can take; None where nobody knows yet."""
        return None if self.pool is None else max(0, self.pool // self.block_bytes - 1)

    def streams(self, tokens: int) -> int | None:
        """How many streams of so many tokens fit beside a question; None where nobody knows yet."""
        if self.blocks is None:
            return None
        footprint = self.footprint
        free = self.blocks - footprint.blocks(footprint.reserve(self.blocks, self.context))
        return max(0, free) // footprint.blocks(tokens)

    def check(self) -> None:
        """Refuse what cannot work, with the numbers and what to change.

        Raises:
            ModelError: the weights leave no room, or the KV cache cannot hold one context, or too few streams.
        """
        weights = self.weights // (self.cache.tensor * self.cache.pipeline)
        if self.memory is not None and weights + (self.pool or 0) > self.memory:
            pool = "" if self.pool is None else f" and {gib(self.pool)} are set aside for the KV cache"
            raise ModelError(
                f"The weights of {self.name} take {gib(weights)}{pool}, and there are {gib(self.memory)} of memory."
                " Choose a smaller model or a smaller format of it, or set aside less (--kv-cache-gb).",
                param="model",
            )
        if self.pool is None or self.blocks is None:
            return
        streams = self.streams(self.context) or 0
        if self.sessions is not None and streams < self.sessions:
            needed = self.needed(self.sessions)
            raise ModelError(
                f"{self.sessions} streams of {self.context} tokens and a question beside them need {gib(needed)} of KV"
                f" cache in {self._format}, and {gib(self.pool)} are set aside, which hold {streams}."
                f" {self._way_out(needed, self._longest(self.sessions))}",
                param="sessions",
            )
        footprint = self.footprint
        if footprint.blocks(self.context) > self.blocks:
            fits = min(self.context, footprint.tokens(self.blocks))
            raise ModelError(
                f"A context of {self.context} tokens needs {gib(self.needed())} of KV cache in {self._format}, and"
                f" {gib(self.pool)} are set aside, which hold {fits} tokens. {self._way_out(self.needed(), fits)}",
                param="context",
            )

    def sentence(self) -> str:
        """The plan in a sentence or two, for a log."""
        text = f"{self.name}: {billions(self.shape.parameters)} parameters, {gib(self.weights)} of weights; "
        stream = gib(self.stream_bytes(self.context))
        if self.token_bytes:
            per_token = f"{self.token_bytes / 1024:.1f} KiB per token"
            text += f"KV cache in {self._format}: {per_token}, {stream} for a stream of {self.context} tokens"
        else:
            text += f"{stream} of recurrent state for a stream, however long"
        if self.pool is None:
            return text
        return f"{text}; {gib(self.pool)} hold {self.streams(self.context)} of these beside a question"

    @property
    def _format(self) -> str:
        if self.cache.kv_type in _KV_BYTES:
            return self.cache.kv_type
        return f"{8 * self.cache.item_size} bits"

    def _longest(self, sessions: int) -> int:
        """The longest context of which so many streams fit."""
        footprint, blocks = self.footprint, self.blocks or 0

        def refused(context: int) -> bool:
            free = blocks - footprint.blocks(footprint.reserve(blocks, context))
            return free < sessions * footprint.blocks(context)

        return bisect_right(range(1, self.context + 1), False, key=refused)

    def _way_out(self, needed: int, fits: int) -> str:
        shorter = f"lower --context to {fits}" if fits >= 256 else "choose a smaller model"
        finer = "" if self.cache.kv_type in _KV_BYTES else ", or choose a smaller --kv-cache-type"
        more = f"{-(-needed * 100 // GIB) / 100:.2f} GiB"
        return f"Make that {more} (--kv-cache-gb, or a larger GPU), or {shorter}{finer}."


def gpu_pool(memory: int, weights: int) -> int:
    """Bytes that a GPU has for the KV cache. An estimate: what a batch needs beside it depends on the model.

    Args:
        memory: bytes of the GPU's.
        weights: bytes of the weights.
    """
    return max(0, int(memory * _GPU_SHARE) - weights - _GPU_WORK)


def gib(count: float) -> str:
    """Bytes, for people."""
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"


def billions(count: int) -> str:
    """Parameters, for people."""
    return f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"
