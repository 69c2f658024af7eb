"""What the recurrent engine has of its own: its process, its refusals, its constraints. See also the common suite."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from streams.engine import choose
from streams.engine.base import Constraint, Priority, Sampling
from streams.engine.recurrent import library
from streams.engine.recurrent.engine import DEFAULT_CONTEXT, RecurrentEngine
from streams.engine.vllm import EngineOptions, Parallel
from streams.errors import EngineUnavailable, InvalidInput, ModelError
from streams.messages import Conversation, Message, Shape
from tests.engine.test_engine import ask, data, holding, question

SCHEMA = {
    "type": "object",
    "properties": {"trend": {"enum": ["up", "down"]}, "count": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["trend", "count", "note"],
    "additionalProperties": False,
}


async def test_a_killed_process_fails_requests_at_once_and_the_engine_stays_dead(
    recurrent_options: EngineOptions,
) -> None:
    engine = await asyncio.to_thread(choose.load, replace(recurrent_options, context=None))
    try:
        assert engine.facts.context == DEFAULT_CONTEXT
        assert engine.again == replace(recurrent_options, context=None)
        held = engine.hold()
        await held.extend(data(engine, 1, 50))
        generation = engine.generate([5, 6, 7], Sampling(max_tokens=9000, ignore_eos=True), Priority.FLASH)
        await anext(generation)
        losing = asyncio.create_task(engine.lost())
        (pid,) = engine.processes
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailable) as failed:
            async for _ in generation:
                pass
        assert failed.value.retry_after
        await asyncio.wait_for(losing, 1)
        assert engine.dead
        assert held.lost
        for request in (held.extend([4]), engine.hold().extend([4]), ask(engine, [5, 6, 7]), engine.ready()):
            with pytest.raises(EngineUnavailable):
                await request
        await held.release()
    finally:
        await engine.close()
        await engine.close()


async def test_more_streams_than_states_are_all_as_right_as_before(recurrent_engine: RecurrentEngine) -> None:
    prefixes = [data(recurrent_engine, 300 + number, 40 + number) for number in range(20)]
    holds = [recurrent_engine.hold() for _ in prefixes]
    for held, prefix in zip(holds, prefixes, strict=True):
        await held.extend(prefix[:30])
    for held, prefix in zip(holds, prefixes, strict=True):
        await held.extend(prefix[30:])
        assert held.tokens == len(prefix)
    warm = [await ask(recurrent_engine, prefix + question(recurrent_engine)) for prefix in prefixes]
    for held in holds:
        await held.release()
    assert warm[-1].cached == len(prefixes[-1])
    for number in range(30):
        await ask(recurrent_engine, data(recurrent_engine, 400 + number, 20))
    cold = [await ask(recurrent_engine, prefix + question(recurrent_engine)) for prefix in prefixes]
    assert cold[0].cached == 0
    assert [answer.tokens for answer in warm] == [answer.tokens for answer in cold]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
async def test_a_reply_obeys_its_schema(recurrent_engine: RecurrentEngine, temperature: float) -> None:
    sampling = Sampling(
        max_tokens=200,
        temperature=temperature,
        seed=3,
        top_logprobs=3,
        constraint=Constraint("json", SCHEMA, fit=True),
    )
    async with holding(recurrent_engine, prefix := data(recurrent_engine, 500, 60)):
        answer = await ask(recurrent_engine, prefix + question(recurrent_engine), sampling)
    assert answer.finish == "stop"
    assert answer.cached == len(prefix)
    jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert all(value > -100 for at in answer.logprobs for value in at.values())


async def test_a_constraint_that_makes_no_sense_is_refused_and_others_go_on(recurrent_engine: RecurrentEngine) -> None:
    bad = Sampling(max_tokens=4, constraint=Constraint("json", {"type": "nonsense"}))
    refused, answer = await asyncio.gather(
        ask(recurrent_engine, question(recurrent_engine), bad),
        ask(recurrent_engine, question(recurrent_engine)),
        return_exceptions=True,
    )
    assert isinstance(refused, InvalidInput)
    assert not isinstance(answer, BaseException)
    assert recurrent_engine.unfinished == 0


async def test_tokens_that_the_model_does_not_have_are_refused(recurrent_engine: RecurrentEngine) -> None:
    for tokens in ([5, 10**6], [-1]):
        with pytest.raises(InvalidInput):
            await ask(recurrent_engine, tokens)
        held = recurrent_engine.hold()
        with pytest.raises(InvalidInput):
            await held.extend(tokens)
        await held.release()


def test_its_dialect_knows_content_and_schemas(recurrent_engine: RecurrentEngine) -> None:
    dialect = recurrent_engine.dialect
    said = Conversation((Message("user", "Hi"),))
    assert not any((dialect.takes_tools, dialect.reasons, dialect.switchable))
    assert dialect.reader(said, Shape(), []).constraint is None
    constraint = dialect.reader(said, Shape(schema={"type": "integer"}), []).constraint
    assert constraint is not None
    assert constraint.kind == "json"
    with pytest.raises(InvalidInput, match="tool_choice"):
        dialect.reader(said, Shape(choice="required"), [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: {"parallel": Parallel(data=2)}, "--data-parallel-size"),
        (lambda path: {"kv_cache_type": "fp8"}, "Leave out --kv-cache-type: a recurrent model has states"),
        (lambda path: {"quantization": "fp8"}, "Leave out --quantization"),
        (lambda path: {"cpu_offload_gb": 0.5}, "Leave out --cpu-offload-gb"),
        (lambda path: {"dtype": "float32"}, "Leave out --dtype"),
        (lambda path: {"sessions": 129}, "at most 256 states.* Set --sessions to 128 or less"),
        (lambda path: {"sessions": 20, "kv_cache_bytes": 400_000}, "20 streams .* hold 11. Make that 0.001 GiB"),
        (lambda path: {"kv_cache_bytes": 50_000}, "--kv-cache-gb"),
        (lambda path: {"model": broken(path, b"GGUF")}, "get it again"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_a_sentence(
    recurrent_options: EngineOptions, tmp_path: Path, change: Callable[[Path], dict[str, object]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        RecurrentEngine.load(replace(recurrent_options, **change(tmp_path)))  # type: ignore[arg-type]


async def test_as_many_streams_as_asked_for_have_a_state(recurrent_options: EngineOptions) -> None:
    # By themselves the requests that may run at once need fewer.
    engine = await asyncio.to_thread(
        RecurrentEngine.load, replace(recurrent_options, sessions=20, kv_cache_bytes=1 << 20, kv_cache_type="fp16")
    )
    try:
        assert engine.facts.kv_capacity == 20 * engine.facts.context
    finally:
        await engine.close()


def broken(directory: Path, content: bytes) -> Path:
    path = directory / "broken.gguf"
    path.write_bytes(content)
    return path


def test_without_the_extra_the_way_to_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    library.library.cache_clear()
    with pytest.raises(ModelError, match=r"askahead\[recurrent\]"):
        library.library()
    library.library.cache_clear()
