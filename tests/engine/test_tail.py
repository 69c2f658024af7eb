"""The unfilled last block of a held stream is not computed again, and answers are those of a cold run."""

from __future__ import annotations

import asyncio

import pytest

from streams.engine.base import Priority, Sampling
from streams.engine.vllm import VllmEngine
from tests.engine.test_engine import Answer, ask, data, holding, question

ONE = Sampling(max_tokens=3, ignore_eos=True, top_logprobs=5)


async def cold(engine: VllmEngine, prompt: list[int]) -> Answer:
    """The answer of an engine that has nothing in its prefix cache."""
    assert await engine._llm.reset_prefix_cache()
    answer = await ask(engine, prompt, ONE)
    assert answer.cached == 0
    return answer


def assert_same(one: Answer, other: Answer) -> None:
    assert one.tokens == other.tokens
    for at, other_at in zip(one.logprobs, other.logprobs, strict=True):
        assert at == pytest.approx(other_at, abs=2e-3)


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 63, 75, 96, 127])
async def test_all_that_is_held_is_found_whatever_its_length(vllm_engine: VllmEngine, tokens: int) -> None:
    prefix = data(vllm_engine, 500 + tokens, tokens)
    prompt = prefix + question(vllm_engine)
    async with holding(vllm_engine, prefix, (7, 50)):
        warm = await ask(vllm_engine, prompt, ONE)
    assert warm.cached == tokens
    assert_same(warm, await cold(vllm_engine, prompt))


async def test_the_last_token_of_a_prompt_that_is_held_whole_is_computed(vllm_engine: VllmEngine) -> None:
    prefix = data(vllm_engine, 600, 77)
    async with holding(vllm_engine, prefix):
        warm = await ask(vllm_engine, prefix, ONE)
    assert warm.cached == 76
    assert_same(warm, await cold(vllm_engine, prefix))


async def test_a_question_over_less_than_is_held_finds_what_they_share(vllm_engine: VllmEngine) -> None:
    prefix, more = data(vllm_engine, 601, 70), data(vllm_engine, 602, 20)
    asked = question(vllm_engine)
    assert asked[0] != more[0]
    async with holding(vllm_engine, prefix) as held:
        await held.extend(more)
        warm = await ask(vllm_engine, prefix + asked, ONE)
        newest = await ask(vllm_engine, prefix + more + asked, ONE)
    assert (warm.cached, newest.cached) == (70, 90)
    assert_same(warm, await cold(vllm_engine, prefix + asked))
    assert_same(newest, await cold(vllm_engine, prefix + more + asked))


async def test_streams_that_differ_in_their_last_block_are_told_apart(vllm_engine: VllmEngine) -> None:
    common = data(vllm_engine, 603, 64)
    tails = [data(vllm_engine, 604 + number, 20) for number in range(3)]
    asked = question(vllm_engine)
    async with (
        holding(vllm_engine, common + tails[0]),
        holding(vllm_engine, common + tails[1]),
        holding(vllm_engine, common + tails[2][:10]),
    ):
        warm = await asyncio.gather(*(ask(vllm_engine, common + tail + asked, ONE) for tail in tails))
    assert [answer.cached for answer in warm] == [84, 84, 74]
    for tail, answer in zip(tails, warm, strict=True):
        assert_same(answer, await cold(vllm_engine, common + tail + asked))


async def test_a_stream_that_was_released_is_found_in_whole_blocks(vllm_engine: VllmEngine) -> None:
    prefix = data(vllm_engine, 608, 70)
    async with holding(vllm_engine, prefix):
        pass
    assert (await ask(vllm_engine, prefix + question(vllm_engine))).cached == 64


async def test_a_wave_beside_ingest_into_the_same_block_answers_as_a_cold_engine(vllm_engine: VllmEngine) -> None:
    prefix, more = data(vllm_engine, 609, 65), data(vllm_engine, 610, 150)
    prompts = [prefix + question(vllm_engine, number) for number in range(8)]
    async with holding(vllm_engine, prefix) as held:
        asking = [asyncio.create_task(ask(vllm_engine, prompt, ONE, Priority.FLASH)) for prompt in prompts]
        for at in range(0, len(more), 10):
            await held.extend(more[at : at + 10])
        warm = await asyncio.gather(*asking)
        whole = await ask(vllm_engine, prefix + more + question(vllm_engine), ONE)
    assert all(answer.cached >= 65 for answer in warm)
    assert whole.cached == len(prefix) + len(more)
    for prompt, answer in zip(prompts, warm, strict=True):
        assert_same(answer, await cold(vllm_engine, prompt))
    assert_same(whole, await cold(vllm_engine, prefix + more + question(vllm_engine)))
