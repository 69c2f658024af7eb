"""Every family at toy size: its answers are those of transformers, however its stream came about."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

from redis.asyncio import Redis

from streams.engine import choose
from streams.engine.base import Piece, Priority, Sampling
from streams.residency import common_length
from tests import apps
from tests.apps import ok, settled
from tests.engine.counting import CountingEngine
from tests.models.conftest import Served
from tests.models.vocabulary import readings

ANSWER = 8
SLICES = (37, 64, 50)
QUESTION, OTHER_QUESTION = "Is it warm? Answer:", "Rising or falling?"
TIE = 2e-3
"""Logits. Of two tokens that are closer than this, exact implementations may take either."""


class Recording(CountingEngine):
    """What it was asked, and what it said.

    Attributes:
        said: prompt and answer of every generation, as far as it came.
    """

    def __init__(self, engine: choose.LoadedEngine) -> None:
        super().__init__(engine)
        self.said: list[tuple[list[int], list[int]]] = []

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        answer: list[int] = []
        self.said.append((list(tokens), answer))
        async with aclosing(super().generate(tokens, sampling, priority, rank)) as pieces:
            async for piece in pieces:
                answer += piece.token_ids
                yield piece


async def ask(served: Served, prompt: Sequence[int]) -> tuple[list[int], int]:
    """The greedy answer, which never ends by itself, and how much of the prompt was cached."""
    tokens: list[int] = []
    cached = 0
    async for piece in served.engine.generate(
        prompt, Sampling(max_tokens=ANSWER, ignore_eos=True), Priority.FOREGROUND
    ):
        tokens += piece.token_ids
        cached = piece.cached_tokens
    return tokens, cached


def equal(served: Served, prompt: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether every token of the answer is the reference's choice after what is before it."""
    return max(served.behind(prompt, answer)) < TIE


async def test_answers_are_those_of_transformers_cold_held_and_beside_each_other(served: Served) -> None:
    engine = served.engine
    question = engine.tokenizer.encode(QUESTION)
    stream = engine.tokenizer.encode(readings(20))[: sum(SLICES)]
    assert len(stream) == sum(SLICES)
    held, end, reused = engine.hold(), 0, []
    try:
        for size in SLICES:
            await held.extend(stream[end : end + size])
            end += size
            prompt = [*stream[:end], *question]
            for _ in range(2):
                answer, cached = await ask(served, prompt)
                assert equal(served, prompt, answer), end
            reused.append(cached)
            other = [*engine.tokenizer.encode(readings(12, first=30)), *question][size % 5 :]
            answer, cached = await ask(served, other)
            assert equal(served, other, answer), f"cold, beside {end}"
            assert cached <= common_length(other, stream), "what both begin with, and nothing else"
    finally:
        await held.release()
    served.seen["reuse"] = f"{reused[-1]} of {end}"


async def test_the_main_job(served: Served, redis: Redis, tmp_path: Path) -> None:
    engine = Recording(served.engine)
    async with apps.serving(redis, tmp_path, engine) as client:  # type: ignore[arg-type]
        flash = {"query": QUESTION, "max_tokens": ANSWER}
        await ok(client, "POST", "/v1/sessions", {"id": "s", "flash": [flash]})
        asked = {"prompt": OTHER_QUESTION, "max_tokens": ANSWER, "temperature": 0}
        texts = set()
        for version, hour in enumerate((0, 5, 10), start=1):
            await ok(client, "POST", "/v1/sessions/s/push", {"data": readings(5, first=hour)})
            await settled(client, "s")
            (polled,) = await apps.answered(client, "s")
            generated = await ok(client, "POST", "/v1/sessions/s/generate", asked)
            assert (polled["data_version"], generated["data_version"]) == (version, version)
            texts |= {polled["value"], generated["text"]}
    assert len(engine.said) == 6
    assert len(texts) > 3
    for prompt, answer in engine.said:
        assert equal(served, prompt, answer)
    served.seen["job"] = "yes"


def test_the_documentation_says_what_was_seen(served: Served) -> None:
    engine = type(served.engine).__name__
    row = (
        f"| {served.name} | `{served.architecture}` | yes | {served.seen['job']} | yes | {served.seen['reuse']} |"
        f" {'vLLM' if engine == 'VllmEngine' else 'llama.cpp'} |"
    )
    print(row)
    if "ASKAHEAD_TEST_TABLES" in os.environ:
        with (Path(os.environ["ASKAHEAD_TEST_TABLES"]) / "architectures.md").open("a") as file:
            file.write(row + "\n")
    assert row in (Path(__file__).parents[2] / "docs" / "models.md").read_text().splitlines()
