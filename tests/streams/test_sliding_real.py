"""Ten thousand entries through a window of 4,096 tokens, on vLLM, with somebody asking all the while."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from streams.engine.base import Piece, Priority, Sampling
from streams.engine.vllm import VllmEngine
from streams.manager import Limits, Manager
from streams.session import Session
from streams.window import Window
from tests.engine.counting import CountingEngine
from tests.streams.kit import InstantLog

WINDOW = 4096
ENTRIES = 10_000
BATCH = 50
# What a model of few layers says hardly depends on what it reads; how sure it is does.
SAMPLING = Sampling(max_tokens=1, top_logprobs=5)
EXACT = 1e-3
QUESTION = "Is the last value above the first? Answer yes or no."


@dataclass(frozen=True)
class Asked:
    version: int
    tokens: tuple[int, ...]
    evicted: int
    covered: int
    answer: dict[int, float]
    first_token: float
    moving: bool


async def ask(manager: Manager, session: Session) -> Asked:
    prompt = await manager.questions.prompt(session, manager.questions.encode(QUESTION))
    evicted, covered = session.evicted, session.covered
    moving = manager.moving(session)
    started, first = time.monotonic(), 0.0
    with manager.questions.foreground(session):
        reply = manager.questions.reply(prompt, SAMPLING)
        async with aclosing(reply):
            async for _ in reply.deltas():
                first = first or time.monotonic() - started
    moving = moving and manager.moving(session)
    return Asked(prompt.version or 0, prompt.tokens, evicted, covered, dict(reply.logprobs[0].top), first, moving)


async def again(engine: VllmEngine, tokens: Sequence[int]) -> dict[int, float]:
    pieces: AsyncGenerator[Piece, None] = engine.generate(tokens, SAMPLING, Priority.FOREGROUND)
    async with aclosing(pieces):
        (likely,) = [logprobs async for piece in pieces for logprobs in piece.logprobs]
    return dict(sorted(likely.items(), key=lambda item: -item[1])[: SAMPLING.top_logprobs])


@pytest.mark.timeout(600)
async def test_ten_thousand_entries(quick_engine: VllmEngine, capsys: pytest.CaptureFixture[str]) -> None:
    engine = CountingEngine(quick_engine)
    walk = random.Random(1)
    lines = [str(walk.randrange(10)) for _ in range(ENTRIES)]
    encoded = [tuple(quick_engine.tokenizer.encode(f"{line}\n")) for line in lines]
    asked: list[Asked] = []
    longest = 0
    async with Manager(engine, Limits(), InstantLog()) as manager:  # type: ignore[arg-type]
        session = await manager.create("s", window=Window(WINDOW))
        done = asyncio.Event()

        async def produce() -> None:
            nonlocal longest
            for start in range(0, ENTRIES, BATCH):
                ack = await manager.push(session, lines[start : start + BATCH])
                assert ack.dropped == 0
                while session.queue.tokens > 3 * BATCH:
                    longest = max(longest, session.tokens)
                    await asyncio.sleep(0.01)
            await session.resident(ENTRIES, 120)
            done.set()

        async def watch() -> None:
            while not done.is_set():
                if session.version:
                    asked.append(await ask(manager, session))
                await asyncio.sleep(0.3)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(produce())
            tasks.create_task(watch())
        head = session.frame.head
        tail = (*manager.questions.encode(QUESTION), *session.frame.tail)
        for each in asked:
            shown = [token for tokens in encoded[each.evicted : each.covered] for token in tokens]
            assert each.tokens == (*head, *shown, *tail), "a whole timeline: nothing twice, nothing missing"
        assert session.evicted + len(session.timeline.data()) == ENTRIES
    pushed = sum(map(len, encoded))
    moving = [each.first_token for each in asked if each.moving]
    still = [each.first_token for each in asked if not each.moving and len(each.tokens) > WINDOW // 2]
    for each in walk.sample(asked, 5):
        assert await again(quick_engine, each.tokens) == pytest.approx(each.answer, abs=EXACT)
    # So exactly that no two of different prompts are alike.
    last, before = list({each.tokens: each.answer for each in asked}.values())[-2:]
    assert last != pytest.approx(before, abs=EXACT)
    figures = (
        f"\n{len(asked)} questions; first token while the window moves {statistics.median(moving) * 1000:.0f} ms "
        f"({len(moving)}), between {statistics.median(still) * 1000:.0f} ms ({len(still)}), worst "
        f"{max(moving) * 1000:.0f} and {max(still) * 1000:.0f}; {engine.prefilled} tokens read of {pushed} pushed, "
        f"{engine.prefilled / pushed:.2f}; longest {longest}"
    )
    with capsys.disabled():
        print(figures)
    assert longest <= WINDOW + session.window.slack
    assert pushed < engine.prefilled <= 2.2 * pushed
    assert len(moving) >= 5
    assert statistics.median(moving) <= 3 * statistics.median(still), figures
