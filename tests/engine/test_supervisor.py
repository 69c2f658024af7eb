"""The engine's life as the rest of the server sees it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from streams.engine.base import Engine, Priority, Sampling
from streams.engine.supervisor import Supervisor
from streams.errors import EngineUnavailable, ModelError
from tests.engine.fast import FastEngine


def assert_ready(supervisor: Supervisor) -> None:
    assert supervisor.state == "ready"


async def test_loading_does_not_block_the_loop_and_ends_in_ready() -> None:
    proceed, engine = threading.Event(), FastEngine()

    def load() -> FastEngine:
        assert proceed.wait(10)
        return engine

    supervisor = Supervisor(load)
    assert supervisor.state == "loading"
    supervisor.start()
    await asyncio.sleep(0)
    with pytest.raises(EngineUnavailable) as refused:
        _ = supervisor.engine
    assert refused.value.retry_after
    proceed.set()
    surviving = await supervisor.wait_ready()
    assert supervisor.engine is surviving
    assert (surviving.facts, surviving.tokenizer, surviving.dialect) == (engine.facts, engine.tokenizer, engine.dialect)
    assert_ready(supervisor)
    await supervisor.close()
    assert engine.dead


async def test_a_failed_load_is_said_once_and_in_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    def load() -> FastEngine:
        raise ModelError("There is no such model.")

    supervisor = Supervisor(load)
    with caplog.at_level(logging.INFO, "streams.engine.supervisor"):
        supervisor.start()
        with pytest.raises(EngineUnavailable, match="no such model") as refused:
            await supervisor.wait_ready()
    assert refused.value.retry_after is None
    assert supervisor.state == "failed"
    assert supervisor.failure == "There is no such model."
    assert [(r.levelname, r.exc_info) for r in caplog.records] == [("ERROR", None)]
    await supervisor.close()


async def test_an_unexpected_error_of_the_loader_is_a_failed_load() -> None:
    def load() -> FastEngine:
        raise ZeroDivisionError

    supervisor = Supervisor(load)
    supervisor.start()
    with pytest.raises(EngineUnavailable):
        await supervisor.wait_ready()
    assert supervisor.failure == "ZeroDivisionError"
    await supervisor.close()


class Engines:
    """Loads one engine after another; ``made`` are all there were."""

    def __init__(self, *failures: Exception | None, **facts: int) -> None:
        self.made: list[FastEngine] = []
        self._failures = list(failures)
        self._facts = facts

    def load(self) -> FastEngine:
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
        self.made.append(FastEngine(**self._facts))
        return self.made[-1]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that died is replaced without a pause."""
    monkeypatch.setattr("streams.engine.supervisor._FIRST_PAUSE", 0.0)


async def say(engine: Engine) -> str:
    pieces = engine.generate([1, 2, 3], Sampling(max_tokens=4), Priority.FOREGROUND)
    return "".join([piece.text async for piece in pieces])


@pytest.mark.usefixtures("at_once")
async def test_a_dead_engine_is_seen_at_once_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    engines = Engines(None, ModelError("No memory."), None)
    supervisor = Supervisor(engines.load)
    supervisor.start()
    engine = await supervisor.wait_ready()
    before, facts, held = await say(engine), engine.facts, engine.hold()
    await held.extend([1, 2, 3])
    engines.made[0].kill()
    assert supervisor.state == "restarting"
    assert engine.dead
    assert held.lost
    for refused in (say(engine), held.extend([4]), engine.hold().extend([1])):
        with pytest.raises(EngineUnavailable) as refusal:
            await refused
        assert refusal.value.retry_after
    async with asyncio.timeout(10):
        await engine.ready()
    assert_ready(supervisor)
    assert "No memory." in caplog.text
    assert supervisor.failure is None
    assert len(engines.made) == 2
    assert (await say(engine), engine.facts) == (before, facts)
    fresh = engine.hold()
    await fresh.extend([1])
    assert held.lost
    assert not fresh.lost
    await held.release()
    await supervisor.close()
    await supervisor.close()
    assert engines.made[1].dead


@pytest.mark.usefixtures("at_once")
async def test_engines_are_replaced_again_and_again() -> None:
    engines = Engines()
    supervisor = Supervisor(engines.load)
    supervisor.start()
    engine = await supervisor.wait_ready()
    for _ in range(5):
        engines.made[-1].kill()
        async with asyncio.timeout(10):
            await engine.lost()
            await engine.ready()
        assert await say(engine)
    await supervisor.close()
    assert all(made.dead for made in engines.made)


@pytest.mark.usefixtures("at_once")
async def test_what_holds_less_than_was_granted_takes_no_place(caplog: pytest.LogCaptureFixture) -> None:
    made = [FastEngine(kv_capacity=size, ranks=ranks) for size, ranks in ((8192, 2), (4096, 2), (16384, 1), (16384, 2))]
    left = made.copy()
    supervisor = Supervisor(lambda: left.pop(0))
    supervisor.start()
    engine = await supervisor.wait_ready()
    made[0].kill()
    async with asyncio.timeout(10):
        await engine.ready()
    assert engine.facts.kv_capacity == 8192
    assert "not like the one before" in caplog.text
    assert [one.dead for one in made] == [True, True, True, False]
    await supervisor.close()


async def test_requests_reach_their_rank() -> None:
    made = FastEngine(ranks=2)
    supervisor = Supervisor(lambda: made)
    supervisor.start()
    engine = await supervisor.wait_ready()
    assert engine.facts.ranks == 2
    await engine.hold(Priority.INGEST, 1).extend([1, 2, 3])
    async for _ in engine.generate([1, 2, 3], Sampling(max_tokens=1), Priority.FOREGROUND, 1):
        pass
    assert [(call.kind, call.rank) for call in made.calls] == [("extend", 1), ("generate", 1)]
    await supervisor.close()


async def test_closing_while_another_engine_is_loaded_aborts_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.engine.supervisor._FIRST_PAUSE", 0.0)
    first, loading, aborted = FastEngine(), threading.Event(), threading.Event()
    left = [first]

    def load() -> FastEngine:
        if left:
            return left.pop()
        loading.set()
        assert aborted.wait(10)
        raise ModelError("The engine's process ended.")

    def abort() -> None:
        assert loading.is_set()
        aborted.set()

    supervisor = Supervisor(load, abort=abort)
    supervisor.start()
    await supervisor.wait_ready()
    first.kill()
    await asyncio.to_thread(loading.wait, 10)
    await supervisor.close()
    assert aborted.is_set()
    assert supervisor.state == "restarting"


async def test_closing_while_loading_aborts_the_load(caplog: pytest.LogCaptureFixture) -> None:
    aborted = threading.Event()

    def load() -> FastEngine:
        assert aborted.wait(10)
        raise ModelError("The engine's process ended.")

    supervisor = Supervisor(load, abort=aborted.set)
    supervisor.start()
    await asyncio.sleep(0)
    with caplog.at_level(logging.INFO, "streams.engine.supervisor"):
        await supervisor.close()
    assert supervisor.state == "failed"
    assert not caplog.records


async def test_an_engine_that_arrives_while_closing_is_closed() -> None:
    aborted, engine = threading.Event(), FastEngine()

    def load() -> FastEngine:
        assert aborted.wait(10)
        return engine

    supervisor = Supervisor(load, abort=aborted.set)
    supervisor.start()
    await supervisor.close()
    assert engine.dead


async def test_closing_what_was_never_started_is_fine() -> None:
    await Supervisor(FastEngine).close()


async def test_it_starts_once() -> None:
    supervisor = Supervisor(FastEngine)
    supervisor.start()
    with pytest.raises(RuntimeError):
        supervisor.start()
    await supervisor.close()
