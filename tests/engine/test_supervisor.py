"""The engine's life as the rest of the server sees it."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

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
    assert await supervisor.wait_ready() is engine
    assert supervisor.engine is engine
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


async def test_a_dead_engine_is_seen_at_once() -> None:
    engine = FastEngine()
    supervisor = Supervisor(lambda: engine)
    supervisor.start()
    await supervisor.wait_ready()
    engine.kill()
    assert supervisor.state == "dead"
    with pytest.raises(EngineUnavailable) as refused:
        _ = supervisor.engine
    assert refused.value.retry_after
    await supervisor.close()
    await supervisor.close()


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
