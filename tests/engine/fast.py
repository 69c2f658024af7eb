"""A deterministic engine in this process, for tests that are about what uses an engine.

It accounts for context, KV blocks and cached prefixes as vLLM does, and its answers depend on the whole prompt.
"""

from __future__ import annotations

import asyncio
import codecs
import hashlib
import itertools
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from streams.engine.base import FinishReason, ModelFacts, Piece, Priority, Sampling
from streams.errors import Conflict, ContextLengthExceeded, EngineUnavailable, InvalidInput
from streams.waiting import uninterrupted
from tests.engine.fast_dialect import FastDialect, obeying, thinks
from tests.engine.fast_tokenizer import CONTROL, DEFAULT_SYSTEM, IM_END, THOUGHT, VOCABULARY, FastTokenizer

WORDS = ("rising", "falling", "steady", "volatile", "normal", "unusual", "yes", "no")
MAX_LOGPROBS = 20

__all__ = ["CONTROL", "DEFAULT_SYSTEM", "VOCABULARY", "WORDS", "Call", "FastEngine", "FastHeld", "FastTokenizer"]


class Call(NamedTuple):
    """What the engine was asked to do: ``extend``, ``generate`` or ``release``, over how many tokens, and where."""

    kind: str
    tokens: int
    priority: Priority
    rank: int


class FastEngine:
    """An :class:`~streams.engine.base.Engine`.

    Attributes:
        ingest_gate: while cleared, ``extend`` waits.
        release_gate: while cleared, ``release`` waits.
        generate_gate: while cleared, ``generate`` waits before every token.
        calls: everything asked, in order.
        holds: the holds that have tokens now.
        running: generations that have started and not ended.
        script: what it says to the next requests in the foreground, in place of answers of its own.
        reading_error: what ``extend`` fails with, though the engine lives.
        lives: how often it was dead and came back.
    """

    def __init__(
        self,
        *,
        context: int = 4096,
        block_size: int = 16,
        kv_capacity: int = 65536,
        ranks: int = 1,
        bounds: tuple[int | None, ...] = (None,),
        states: int = 0,
        name: str = "fast",
        **told: Any,
    ) -> None:
        """Make one.

        Args:
            told: further facts of the model.
        """
        self._facts = ModelFacts(name, context, block_size, kv_capacity, ranks, bounds, states, **told)
        self._tokenizer = FastTokenizer()
        self._dialect = FastDialect()
        self._dead = asyncio.Event()
        self._alive = asyncio.Event()
        self._alive.set()
        self._caches: list[OrderedDict[bytes, None]] = [OrderedDict() for _ in range(ranks)]
        self._serial = itertools.count(1)
        self.ingest_gate = asyncio.Event()
        self.generate_gate = asyncio.Event()
        self.ingest_gate.set()
        self.generate_gate.set()
        self.release_gate = asyncio.Event()
        self.release_gate.set()
        self.calls: list[Call] = []
        self.holds: set[FastHeld] = set()
        self.running = 0
        self.script: deque[str] = deque()
        self.reading_error: Exception | None = None
        self.lives = 0

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._tokenizer

    @property
    def dialect(self) -> FastDialect:
        return self._dialect

    @property
    def dead(self) -> bool:
        return self._dead.is_set()

    async def ready(self) -> None:
        await self._alive.wait()

    async def lost(self) -> None:
        await self._dead.wait()

    def kill(self) -> None:
        """Die as a killed engine does: requests in flight fail at once, and all KV is gone."""
        self._dead.set()
        self._alive.clear()
        self.ingest_gate.set()
        self.generate_gate.set()
        self.release_gate.set()
        self.holds.clear()
        for cache in self._caches:
            cache.clear()

    def revive(self) -> None:
        """Be another engine, which knows nothing of what this one held."""
        self.lives += 1
        self._dead.clear()
        self._alive.set()

    async def close(self) -> None:
        self.kill()

    def hold(self, priority: Priority = Priority.INGEST, rank: int = 0) -> FastHeld:
        return FastHeld(self, priority, range(self._facts.ranks)[rank])

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        life = self.lives
        self.require_alive(life)
        prompt = list(tokens)
        self._refuse(prompt, sampling)
        self.calls.append(Call("generate", len(prompt), priority, rank))
        self.running += 1
        try:
            await self.passing(self.generate_gate)
            self.require_alive(life)
            cached = self.cached(prompt, rank)
            self._touch(prompt, rank)
            text = self.script.popleft() if self.script and priority == Priority.FOREGROUND else None
            if text is None:
                salt = b"" if not sampling.temperature else str(sampling.seed or -next(self._serial)).encode()
                text = _text(prompt, sampling, salt, self._facts.context)
            steps, finish, stop = _steps(text, sampling, min(sampling.max_tokens, self._facts.context - len(prompt)))
            for position, (token, text) in enumerate(steps):
                await self.passing(self.generate_gate)
                self.require_alive(life)
                yield Piece(
                    text=text,
                    token_ids=(token,),
                    logprobs=_logprobs(_digest(prompt, str(position).encode()), token, sampling),
                    cached_tokens=cached,
                    finish_reason=finish if position == len(steps) - 1 else None,
                    stop=stop if position == len(steps) - 1 else None,
                )
            self._touch(prompt + [token for token, _ in steps[:-1]], rank)
        finally:
            self.running -= 1

    def require_alive(self, life: int) -> None:
        if self.dead or self.lives != life:
            raise EngineUnavailable.restarting()

    async def passing(self, gate: asyncio.Event) -> None:
        await asyncio.sleep(0)
        await gate.wait()

    def settle(self, held: FastHeld) -> None:
        """Account for what a hold has now.

        Raises:
            AssertionError: more is held than the pool has; a real engine would block everything.
        """
        self._touch(held.content, held.rank)
        size, footprint = self._facts.block_size, self._facts.footprint
        blocks = sum(footprint.blocks(len(h.content)) for h in self.holds if h.rank == held.rank)
        assert blocks * size <= self._facts.kv_capacity, "more tokens are held than the KV cache has"

    def _refuse(self, prompt: list[int], sampling: Sampling) -> None:
        if not prompt:
            raise InvalidInput("The prompt is empty; send at least one token.", param="prompt")
        if len(prompt) >= self._facts.context:
            raise ContextLengthExceeded("The prompt does not fit the context.")
        for name, fine in (
            ("max_tokens", sampling.max_tokens >= 1),
            ("temperature", sampling.temperature >= 0),
            ("top_p", 0 < sampling.top_p <= 1),
            ("stop", all(sampling.stop)),
            ("logprobs", 0 <= sampling.top_logprobs <= MAX_LOGPROBS),
            ("logprob_token_ids", all(0 <= i < VOCABULARY for i in sampling.logprob_token_ids)),
        ):
            if not fine:
                raise InvalidInput(f"{name} is out of range.", param=name)

    def _blocks(self, tokens: Sequence[int]) -> list[bytes]:
        size, chain, blocks = self._facts.block_size, b"", []
        for start in range(0, len(tokens) - size + 1, size):
            chain = _digest(tokens[start : start + size], chain)
            blocks.append(chain)
        return blocks

    def cached(self, prompt: list[int], rank: int = 0) -> int:
        """How many tokens of a prompt a rank need not compute."""
        # The last token is always computed, for its logits are what a question is about.
        hits = itertools.takewhile(self._caches[rank].__contains__, self._blocks(prompt[:-1]))
        return sum(1 for _ in hits) * self._facts.block_size

    def _touch(self, tokens: Sequence[int], rank: int) -> None:
        cache = self._caches[rank]
        for block in self._blocks(tokens):
            cache[block] = None
            cache.move_to_end(block)
        pinned = {block for held in self.holds if held.rank == rank for block in self._blocks(held.content)}
        surplus = len(cache) - self._facts.kv_capacity // self._facts.block_size
        for block in [b for b in cache if b not in pinned][: max(surplus, 0)]:
            del cache[block]


class FastHeld:
    """A :class:`~streams.engine.base.Held`. Fails and ends as the real one does."""

    def __init__(self, engine: FastEngine, priority: Priority, rank: int) -> None:
        self._engine = engine
        self._priority = priority
        self._life = engine.lives
        self.rank = rank
        self._over = False
        self._lock = asyncio.Lock()
        self.content: list[int] = []
        self.cached = 0

    @property
    def tokens(self) -> int:
        return len(self.content)

    @property
    def lost(self) -> bool:
        return self._engine.dead or self._engine.lives != self._life

    async def extend(self, tokens: Sequence[int]) -> None:
        async with self._lock:
            if not tokens:
                return
            if self._over:
                raise Conflict("These tokens are no longer held; hold the stream again.")
            if len(self.content) + len(tokens) >= self._engine.facts.context:
                raise ContextLengthExceeded("The stream does not fit the context.")
            self._engine.calls.append(Call("extend", len(tokens), self._priority, self.rank))
            try:
                self._engine.require_alive(self._life)
                await self._engine.passing(self._engine.ingest_gate)
                self._engine.require_alive(self._life)
                if self._engine.reading_error is not None:
                    raise self._engine.reading_error
            except BaseException:
                self._give_back()
                raise
            if not self.content:
                self.cached = self._engine.cached(list(tokens), self.rank)
            self.content.extend(tokens)
            self._engine.holds.add(self)
            self._engine.settle(self)

    async def release(self) -> None:
        await uninterrupted(self._release())

    async def _release(self) -> None:
        async with self._lock:
            if not self.lost:
                await asyncio.sleep(0)
                await self._engine.release_gate.wait()
            if self.content:
                self._engine.calls.append(Call("release", len(self.content), self._priority, self.rank))
            self._give_back()

    def _give_back(self) -> None:
        self._over = True
        self._engine.holds.discard(self)
        self.content = []


def _digest(tokens: Sequence[int], salt: bytes = b"") -> bytes:
    return hashlib.blake2b(b"".join(t.to_bytes(4, "big") for t in tokens) + b"|" + salt, digest_size=8).digest()


def _text(prompt: list[int], sampling: Sampling, salt: bytes, context: int) -> str:
    """What is said to a prompt: thoughts if it opens some, then what the constraint asks for, or a word."""
    word = WORDS[_digest(prompt, salt)[0] % len(WORDS)]
    thoughts = f"It may be {word}.{THOUGHT}" if thinks(prompt) else ""
    if sampling.constraint is not None:
        return thoughts + obeying(sampling.constraint)
    room = min(sampling.max_tokens, context - len(prompt))
    return thoughts + (" ".join([word] * (1 + room // len(word))) if sampling.ignore_eos else word)


def _steps(text: str, sampling: Sampling, room: int) -> tuple[list[tuple[int, str]], FinishReason, str | None]:
    """The tokens of an answer, each with the text it adds; why the answer ends, and the stop sequence that ended it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    steps = [(byte, decoder.decode(bytes([byte]))) for byte in text.encode()]
    finish: FinishReason = "stop"
    hits = sorted((at, -len(stop), stop) for stop in sampling.stop if (at := text.find(stop)) >= 0)
    stop = hits[0][2] if hits else None
    if stop is not None:
        kept = len(text[: hits[0][0]].encode())
        last = kept + len(stop.encode())
        steps = [(token, shown if i < kept else "") for i, (token, shown) in enumerate(steps[:last])]
    elif not sampling.ignore_eos:
        steps.append((IM_END, ""))
    else:
        finish = "length"
    return (steps, finish, stop) if len(steps) <= room else (steps[:room], "length", None)


def _logprobs(state: bytes, sampled: int, sampling: Sampling) -> tuple[Mapping[int, float], ...]:
    def of(token: int) -> float:
        share = _digest([token], state)[0] / 256
        return -(0.5 + share / 2) if token == sampled else -(6.0 + 4.0 * share)

    if named := sampling.logprob_token_ids:
        return ({token: of(token) for token in (sampled, *named)},)
    if not sampling.top_logprobs:
        return ()
    ranked = sorted(range(VOCABULARY), key=lambda token: (-of(token), token))
    return ({token: of(token) for token in ranked[: sampling.top_logprobs]},)
