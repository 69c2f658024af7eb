"""Mamba in Hugging Face format: converted once for llama.cpp, which says what transformers says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

from streams.engine import choose
from streams.engine.base import Sampling
from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.recurrent.model import Model
from streams.engine.vllm import EngineOptions
from streams.errors import ModelError
from streams.models import ResolvedModel
from streams.models.describe import describe
from streams.models.shape import State
from tests.engine.test_engine import ask
from tests.models import toys

SAMPLING = Sampling(max_tokens=8, top_logprobs=3, ignore_eos=True)
LINES = [f"At {hour:02}:00 the sensor reads {20 + hour * 7 % 13}.{hour % 10} degrees.\n" for hour in range(12)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.build("mamba", tmp_path_factory.mktemp("mamba"))


@pytest.fixture(scope="module")
def prepared(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return choose.prepared(ResolvedModel("mamba", directory), tmp_path_factory.mktemp("models"), print).path


@pytest.fixture(scope="module")
def engine(prepared: Path) -> Iterator[RecurrentEngine]:
    engine = RecurrentEngine.load(EngineOptions(model=prepared, name="mamba", context=1024, threads=1))
    yield engine
    asyncio.run(engine.close())


async def test_every_version_of_a_stream_is_answered_as_by_transformers(
    directory: Path, engine: RecurrentEngine
) -> None:
    model = toys.load(directory)
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
                with torch.no_grad():
                    expected = model(torch.tensor([said])).logits[0, -1].double().log_softmax(0).tolist()
                assert dict(reported) == pytest.approx({i: expected[i] for i in reported}, abs=2e-3)
                said.append(token)
    await held.release()


def test_a_state_has_the_size_that_is_planned(prepared: Path) -> None:
    loaded = Model(prepared, memory=1 << 24, at_most=8, at_least=8, threads=1)
    (state,) = describe(str(prepared), progress=print).shape.kept
    assert isinstance(state, State)
    # Whatever llama.cpp writes beside it when it copies one.
    assert 0 <= loaded.state_bytes - state.layers * state.numbers * 4 < 256


def test_it_is_converted_once_and_again_when_it_has_changed(directory: Path, prepared: Path, tmp_path: Path) -> None:
    models, told = prepared.parents[1], list[str]()
    model = ResolvedModel("mamba", directory)
    assert choose.prepared(model, models, told.append).path == prepared
    assert not told
    # Matrices keep their 16 bits, and the head is the embedding where the model has it so.
    toys.build("mamba", tmp_path, fields={"tie_word_embeddings": True})
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    other = choose.prepared(ResolvedModel("mamba", tmp_path), models, told.append).path
    assert other != prepared
    assert len(told) == 1
    kinds = {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(other).tensors}
    assert "output.weight" not in kinds
    assert (kinds["token_embd.weight"], kinds["blk.0.ssm_in.weight"]) == ("BF16", "BF16")
    assert {kinds[f"blk.1.{name}"] for name in ("ssm_a", "ssm_d", "ssm_conv1d.weight", "attn_norm.weight")} == {"F32"}
    assert Model(other, memory=1 << 24, at_most=8, at_least=8, threads=1).vocabulary == toys.VOCABULARY


def test_other_models_are_left_as_they_are(tmp_path: Path) -> None:
    for name in ("llama-3.1", "mamba-2"):
        found = ResolvedModel(name, toys.build(name, tmp_path / name))
        assert choose.prepared(found, tmp_path, print) == found


def test_state_spaces_that_nothing_here_runs_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = toys.build("mamba-2", tmp_path)
    with pytest.raises(ModelError, match=r"state-space layers.*CPU build.*GGUF"):
        choose.load(EngineOptions(model=path, name="mamba-2", kv_cache_bytes=16 << 20, dtype="float32"))


def test_a_vocabulary_of_another_kind_is_refused(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        text = file.read_bytes()
        if file.name == "tokenizer.json":
            text = text.replace(b'"ByteLevel"', b'"Metaspace"')
        (tmp_path / file.name).write_bytes(text)
    with pytest.raises(ModelError, match=str(tmp_path)):
        choose.prepared(ResolvedModel("mamba", tmp_path), tmp_path / "models", print)
