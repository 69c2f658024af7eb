"""Mamba through llama.cpp: held, extended and asked beside the stream, it says what transformers says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from transformers import MambaForCausalLM

from streams.engine.base import Sampling
from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.recurrent.model import Model
from streams.engine.vllm import EngineOptions
from streams.models.describe import describe
from streams.models.shape import State
from tests.engine.test_engine import ask
from tests.models import mamba_toy

SAMPLING = Sampling(max_tokens=8, top_logprobs=3, ignore_eos=True)
LINES = [f"At {hour:02}:00 the sensor reads {20 + hour * 7 % 13}.{hour % 10} degrees.\n" for hour in range(12)]


@pytest.fixture(scope="module")
def model() -> MambaForCausalLM:
    return mamba_toy.model()


@pytest.fixture(scope="module")
def engine(model: MambaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecurrentEngine]:
    file = mamba_toy.write(model, tmp_path_factory.mktemp("mamba") / "toy.gguf")
    engine = RecurrentEngine.load(EngineOptions(model=file, name="mamba", context=1024, threads=1))
    yield engine
    asyncio.run(engine.close())


async def test_every_version_of_a_stream_is_answered_as_by_transformers(
    model: MambaForCausalLM, engine: RecurrentEngine
) -> None:
    held, stream = engine.hold(), []
    question = engine.tokenizer.encode("Is it rising?")
    for number, line in enumerate(LINES):
        tokens = engine.tokenizer.encode(line)
        await held.extend(tokens)
        stream += tokens
        if number % 4 == 3:
            answers = [await ask(engine, [*stream, *question], SAMPLING) for _ in range(2)]
            assert [answer.cached for answer in answers] == [len(stream)] * 2
            assert answers[0] == answers[1]
            said = [*stream, *question]
            for token, reported in zip(answers[0].tokens, answers[0].logprobs, strict=True):
                expected = mamba_toy.log_probabilities(model, said)
                assert dict(reported) == pytest.approx({i: expected[i] for i in reported}, abs=2e-3)
                said.append(token)
    await held.release()


def test_a_state_has_the_size_that_is_planned(engine: RecurrentEngine) -> None:
    file = engine.again.model
    loaded = Model(file, memory=1 << 24, at_most=8, at_least=8, threads=1)
    (state,) = describe(str(file), progress=print).shape.kept
    assert isinstance(state, State)
    # Whatever llama.cpp writes beside it when it copies one.
    assert 0 <= loaded.state_bytes - state.layers * state.numbers * 4 < 256
