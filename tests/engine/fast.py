"""A deterministic engine in this process, for tests that are about what uses an engine.

It accounts for context, KV blocks and cached prefixes as vLLM does, and its answers depend on the whole prompt.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from streams.engine.base import FinishReason, ModelFacts, Piece, Priority, Sampling
from streams.errors import Conflict, ContextLengthExceeded, EngineUnavailable, InvalidInput

ENDOFTEXT, IM_START, IM_END = 256, 257, 258
CONTROL = {"<|endoftext|>": ENDOFTEXT, "<|im_start|>": IM_START, "<|im_end|>": IM_END}
VOCABULARY = 259
WORDS = ("rising", "falling", "steady", "volatile", "normal", "unusual", "yes", "no")
DEFAULT_SYSTEM = "You are a helpful AI assistant."
MAX_LOGPROBS = 20


class FastTokenizer:
    """One token per byte of UTF-8, three control tokens, and the ChatML template."""

    control_ids = frozenset(CONTROL.values())

    @property
    def eos_id(self) -> int:
        return IM_END

    def encode(self, text: str) -> list[int]:
        try:
            return list(text.encode())
        except UnicodeEncodeError as exc:
            raise InvalidInput("The text is not valid Unicode: it has half of a surrogate pair.") from exc

    def encode_markup(self, text: str) -> list[int]:
        ids: list[int] = []
        while text:
            found = [(text.find(surface), surface) for surface in CONTROL if surface in text]
            at, surface = min(found, default=(len(text), ""))
            ids += self.encode(text[:at])
            if surface:
                ids.append(CONTROL[surface])
            text = text[at + len(surface) :]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        surfaces = {id_: surface for surface, id_ in CONTROL.items()}
        return "".join(surfaces[i] if i in surfaces else chr(i) for i in ids).encode("latin-1").decode()

    def render(self, messages: Sequence[Mapping[str, str]], options: Mapping[str, object]) -> str:
        if unknown := sorted(options):
            raise InvalidInput(f"{unknown[0]} is not an option of the chat template.", param=unknown[0])
        for message in messages:
            if message.keys() < {"role", "content"}:
                raise InvalidInput("The chat template needs a role and a content.", param="messages")
        shown = list(messages)
        if not shown or shown[0]["role"] != "system":
            shown.insert(0, {"role": "system", "content": DEFAULT_SYSTEM})
        turns = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in shown)
        return f"{turns}<|im_start|>assistant\n"


class Call(NamedTuple):
    """What the engine was asked to do: ``extend``, ``generate`` or ``release``, over how many tokens."""

    kind: str
    tokens: int
    priority: Priority


class FastEngine:
    """An :class:`~streams.engine.base.Engine`.

    Attributes:
        ingest_gate: while cleared, ``extend`` waits.
        generate_gate: while cleared, ``generate`` waits before every token.
        calls: everything asked, in order.
        holds: the holds that have tokens now.
        running: generations that have started and not ended.
    """

    def __init__(self, *, context: int = 4096, block_size: int = 16, kv_capacity: int = 65536) -> None:
        self._facts = ModelFacts(name="fast", context=context, block_size=block_size, kv_capacity=kv_capacity)
        self._tokenizer = FastTokenizer()
        self._dead = False
        self._cache: OrderedDict[bytes, None] = OrderedDict()
        self._serial = itertools.count(1)
        self.ingest_gate = asyncio.Event()
        self.generate_gate = asyncio.Event()
        self.ingest_gate.set()
        self.generate_gate.set()
        self.calls: list[Call] = []
        self.holds: set[FastHeld] = set()
        self.running = 0

    @property
    def facts(self) -> ModelFacts:
        return self._facts

    @property
    def tokenizer(self) -> FastTokenizer:
        return self._tokenizer

    @property
    def dead(self) -> bool:
        return self._dead

    def kill(self) -> None:
        """Die as a killed engine does: requests in flight fail at once."""
        self._dead = True
        self.ingest_gate.set()
        self.generate_gate.set()

    async def close(self) -> None:
        self.kill()

    def hold(self) -> FastHeld:
        return FastHeld(self)

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority
    ) -> AsyncGenerator[Piece, None]:
        self.require_alive()
        prompt = list(tokens)
        self._refuse(prompt, sampling)
        self.calls.append(Call("generate", len(prompt), priority))
        self.running += 1
        try:
            await self.passing(self.generate_gate)
            cached = self._cached(prompt)
            self._touch(prompt)
            salt = b"" if not sampling.temperature else str(sampling.seed or -next(self._serial)).encode()
            steps, finish = _answer(prompt, sampling, salt, self._facts.context)
            for position, (token, text) in enumerate(steps):
                await self.passing(self.generate_gate)
                yield Piece(
                    text=text,
                    token_ids=(token,),
                    logprobs=_logprobs(_digest(prompt, str(position).encode()), token, sampling),
                    cached_tokens=cached,
                    finish_reason=finish if position == len(steps) - 1 else None,
                )
            self._touch(prompt + [token for token, _ in steps[:-1]])
        finally:
            self.running -= 1

    def require_alive(self) -> None:
        if self._dead:
            raise EngineUnavailable("The engine has died; retry once it is back.", retry_after=30.0)

    async def passing(self, gate: asyncio.Event) -> None:
        await asyncio.sleep(0)
        await gate.wait()
        self.require_alive()

    def settle(self, held: FastHeld) -> None:
        """Account for what a hold has now.

        Raises:
            AssertionError: more is held than the pool has; a real engine would block everything.
        """
        self._touch(held.content)
        size = self._facts.block_size
        blocks = sum(-(-len(h.content) // size) for h in self.holds)
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

    def _cached(self, prompt: list[int]) -> int:
        # The last token is always computed, for its logits are what a question is about.
        hits = itertools.takewhile(self._cache.__contains__, self._blocks(prompt[:-1]))
        return sum(1 for _ in hits) * self._facts.block_size

    def _touch(self, tokens: Sequence[int]) -> None:
        for block in self._blocks(tokens):
            self._cache[block] = None
            self._cache.move_to_end(block)
        pinned = {block for held in self.holds for block in self._blocks(held.content)}
        surplus = len(self._cache) - self._facts.kv_capacity // self._facts.block_size
        for block in [b for b in self._cache if b not in pinned][: max(surplus, 0)]:
            del self._cache[block]


class FastHeld:
    """A :class:`~streams.engine.base.Held`. Fails and ends as the real one does."""

    def __init__(self, engine: FastEngine) -> None:
        self._engine = engine
        self._over = False
        self._lock = asyncio.Lock()
        self.content: list[int] = []

    @property
    def tokens(self) -> int:
        return len(self.content)

    async def extend(self, tokens: Sequence[int]) -> None:
        async with self._lock:
            if not tokens:
                return
            if self._over:
                raise Conflict("These tokens are no longer held; hold the stream again.")
            if len(self.content) + len(tokens) >= self._engine.facts.context:
                raise ContextLengthExceeded("The stream does not fit the context.")
            self._engine.calls.append(Call("extend", len(tokens), Priority.INGEST))
            try:
                self._engine.require_alive()
                await self._engine.passing(self._engine.ingest_gate)
            except BaseException:
                self._give_back()
                raise
            self.content.extend(tokens)
            self._engine.holds.add(self)
            self._engine.settle(self)

    async def release(self) -> None:
        async with self._lock:
            if self.content:
                self._engine.calls.append(Call("release", len(self.content), Priority.INGEST))
            self._give_back()

    def _give_back(self) -> None:
        self._over = True
        self._engine.holds.discard(self)
        self.content = []


def _digest(tokens: Sequence[int], salt: bytes = b"") -> bytes:
    return hashlib.blake2b(b"".join(t.to_bytes(4, "big") for t in tokens) + b"|" + salt, digest_size=8).digest()


def _answer(
    prompt: list[int], sampling: Sampling, salt: bytes, context: int
) -> tuple[list[tuple[int, str]], FinishReason]:
    """The tokens of an answer, each with the text it adds, and why the answer ends."""
    room = min(sampling.max_tokens, context - len(prompt))
    word = WORDS[_digest(prompt, salt)[0] % len(WORDS)]
    text = " ".join([word] * (1 + room // len(word))) if sampling.ignore_eos else word
    steps = [(byte, chr(byte)) for byte in text.encode()]
    finish: FinishReason = "stop"
    if hits := [at for stop in sampling.stop if (at := text.find(stop)) >= 0]:
        at = min(hits)
        last = max(at + len(stop) for stop in sampling.stop if text.find(stop) == at)
        steps = [(token, shown if i < at else "") for i, (token, shown) in enumerate(steps[:last])]
    elif not sampling.ignore_eos:
        steps.append((IM_END, ""))
    else:
        finish = "length"
    return (steps, finish) if len(steps) <= room else (steps[:room], "length")


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
