"""Evaluations that fail."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence

import pytest
from redis.asyncio import Redis

from streams.engine.base import Piece, Priority, Sampling
from streams.errors import EngineUnavailable
from tests.engine.fast import FastEngine
from tests.flashquery.kit import arrived, flashing, ready
from tests.streams.kit import until


class Failing(FastEngine):
    """Fails on prompts that hold a text.

    Attributes:
        fails_on: that text; empty for none.
        error: what it fails with.
    """

    fails_on = "fail?"
    error: Exception = EngineUnavailable("the engine failed on this request")

    async def generate(
        self, tokens: Sequence[int], sampling: Sampling, priority: Priority, rank: int = 0
    ) -> AsyncGenerator[Piece, None]:
        if self.fails_on and self.fails_on in self.tokenizer.decode(tokens):
            raise self.error
        async for piece in super().generate(tokens, sampling, priority, rank):
            yield piece


@pytest.mark.parametrize("error", [Failing.error, RuntimeError("a bug")])
async def test_a_query_that_fails_does_not_stop_the_others(
    redis: Redis, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Failing()
    engine.error = error
    async with flashing(redis, engine) as rig:
        session = await rig.manager.create("s")
        failing, fine = await rig.flash.register(session, "fail?"), await rig.flash.register(session, "fine?")
        with rig.hub.subscribe("s") as events:
            for version in (1, 2):
                await rig.push(session, "price")
                announced = await ready(events)
                assert (announced["id"], announced["data_version"]) == (fine.id, version)
            engine.fails_on = ""
            await rig.push(session, "price")
            assert {(await ready(events))["id"] for _ in range(2)} == {failing.id, fine.id}
        assert {answer.version for answer in (await rig.stored("s")).values()} == {3}
    # An outage is one line, however many batches it lasts.
    assert [record.levelno for record in caplog.records if record.name == "flashquery.waves"].count(logging.ERROR) == 1


async def test_a_failure_keeps_the_last_answer_which_is_stale(redis: Redis) -> None:
    engine = Failing()
    engine.fails_on = ""
    async with flashing(redis, engine) as rig:
        session = await rig.manager.create("s")
        query = await rig.flash.register(session, "fail?")
        await rig.push(session, "price")
        await until(lambda: rig.evaluations)
        engine.fails_on = "fail?"
        other = await rig.flash.register(session, "fine?")
        with rig.hub.subscribe("s") as events:
            await rig.push(session, "price")
            while (announced := await ready(events))["data_version"] == 1:
                continue
            assert announced["id"] == other.id
        answers = await rig.stored("s")
        assert {number: answer.version for number, answer in answers.items()} == {query.id: 1, other.id: 2}
        assert rig.flash.match(session, "fail?") is None


async def test_a_choice_that_fails_leaves_no_request_behind(redis: Redis) -> None:
    engine = Failing()
    # The decision after "a" fails at once; the one at the root is under way.
    engine.fails_on = "assistant\na"
    async with flashing(redis, engine) as rig:
        session = await rig.manager.create("s")
        await rig.flash.register(session, "which?", choices=["a", "aa", "b"])
        engine.generate_gate.clear()
        await rig.push(session, "price")
        await until(lambda: engine.running)
        await rig.manager.delete("s")
        assert engine.running == 0


async def test_a_wave_that_died_with_the_engine_is_run_again_with_no_new_data(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashquery.waves._AGAIN_SECONDS", 0.0)
    engine = FastEngine()
    async with flashing(redis, engine) as rig:
        session = await rig.manager.create("s")
        await rig.flash.register(session, "trend?")
        engine.generate_gate.clear()
        await rig.push(session, "price")
        await until(lambda: engine.running)
        engine.kill()
        await until(lambda: not engine.running)
        assert rig.evaluations == []
        engine.revive()
        await until(lambda: rig.evaluations)
        await arrived(rig)
        assert rig.flash.match(session, "trend?")
        await rig.manager.delete("s")
