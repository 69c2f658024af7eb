"""Windows that move, step by step: beside turns and deletions, when the engine fails, and with nobody pushing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from streams.entries import BUILTIN
from streams.errors import EngineUnavailable, Unavailable
from streams.manager import Manager
from streams.pacer import SlicePolicy
from streams.session import Session
from streams.window import Window
from tests.engine.fast import FastEngine
from tests.streams.chatting import assistant, conversation, say, user
from tests.streams.kit import SECONDS, Heard, held_tokens, managing, settled, text_of, until


@pytest.fixture
async def manager(engine: FastEngine) -> AsyncIterator[Manager]:
    async with managing(engine, slices=SlicePolicy(tokens_min=8, tokens_first=64, tokens_max=64)) as manager:
        yield manager


def lines(start: int, end: int, size: int = 40) -> list[str]:
    return [f"{number:04d}".ljust(size, ".") for number in range(start, end)]


async def test_turns_that_come_while_a_batch_is_read_lose_nothing_of_it(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s", window=Window(600))
    engine.ingest_gate.clear()
    await manager.push(session, lines(0, 6, 80))
    await until(lambda: any(call.kind == "extend" for call in engine.calls))
    for number in range(3):
        engine.script.append("so")
        turn = asyncio.create_task(say(manager, session, conversation(user(f"q{number} " + "?" * 90))))
        await until(lambda: session.turning)
        engine.ingest_gate.set()
        await turn
        engine.ingest_gate.clear()
        session.wake()
        await until(lambda: session.pending == 0 or session.reading.locked())
    engine.ingest_gate.set()
    await settled(session)
    assert (session.covered, session.pending, session.statistics("stream")) == (6, 0, {"count": 6})
    assert session.evicted + len(session.timeline.data()) == 6


@pytest.fixture
async def moving(manager: Manager, engine: FastEngine) -> Session:
    """A session whose window is about to move: what stays is read, and the old hold is being released."""
    session = await manager.create("s", window=Window(600))
    await manager.push(session, lines(0, 10))
    await settled(session)
    engine.release_gate.clear()
    await manager.push(session, lines(10, 14))
    await until(lambda: session.evicted)
    assert manager.moving(session)
    return session


async def test_what_waits_for_a_move_is_read_when_it_is_over(
    manager: Manager, engine: FastEngine, moving: Session
) -> None:
    await manager.push(moving, lines(14, 30))
    await until(lambda: moving.tokens > 560)
    engine.release_gate.set()
    await settled(moving)
    await until(lambda: not manager.moving(moving) and moving.tokens <= 600)
    assert text_of(engine, moving).splitlines() == lines(moving.evicted, 30)


async def test_a_session_deleted_during_a_move_leaves_nothing(
    manager: Manager, engine: FastEngine, moving: Session
) -> None:
    deleting = asyncio.create_task(manager.delete("s"))
    await until(lambda: moving.deleted)
    engine.release_gate.set()
    await deleting
    assert (engine.holds, manager.budget.granted, manager.moving(moving)) == (set(), 0, False)


async def test_a_session_deleted_before_its_move_begins_leaves_nothing(manager: Manager, engine: FastEngine) -> None:
    for turns in range(60):
        session = await manager.create("s", window=Window(300))
        await manager.push(session, lines(0, 6))
        for _ in range(turns):
            await asyncio.sleep(0)
        await manager.delete("s")
        assert (engine.holds, manager.budget.granted, manager.moving(session)) == (set(), 0, False)


async def test_the_budget_knows_of_both_holds_until_the_old_one_is_released(
    manager: Manager, engine: FastEngine, moving: Session
) -> None:
    held = sum(len(hold.content) for hold in engine.holds)
    assert held > moving.tokens
    assert manager.budget.granted >= held
    engine.release_gate.set()
    await until(lambda: not manager.moving(moving))
    assert manager.budget.granted < held


async def test_a_window_that_cannot_move_is_told_at_once_to_whoever_waits(manager: Manager, engine: FastEngine) -> None:
    session = await manager.create("s", window=Window(seconds=0.05))
    await manager.push(session, ["a"])
    await settled(session)
    engine.ingest_gate.clear()
    await manager.push(session, ["b"])
    waiting = asyncio.create_task(session.resident(2, SECONDS))
    await until(lambda: session.pending)
    engine.reading_error = ValueError("a bug")
    engine.ingest_gate.set()
    with pytest.raises(Unavailable) as told:
        await waiting
    assert told.value.code == "session_ended"
    with pytest.raises(EngineUnavailable):
        await manager.push(session, ["c"])
    # The loop has ended: time that passes wakes nobody.
    await until(lambda: all(not task.get_name().startswith("ingest-") for task in asyncio.all_tasks()))


async def test_a_window_in_seconds_moves_again_and_again_with_nobody_pushing(manager: Manager) -> None:
    heard = Heard()
    manager.listen(heard)
    session = await manager.create("s", window=Window(seconds=0.2))
    await manager.push(session, ["first"])
    await settled(session)
    await asyncio.sleep(0.15)
    await manager.push(session, ["second"])
    await until(lambda: session.evicted == 2)
    assert len(heard.moves) == 2
    assert session.frozen_end == session.data_end == len(session.timeline.head)


async def test_a_conversation_that_ends_where_the_forgotten_part_does_is_asked_anew(
    manager: Manager, engine: FastEngine
) -> None:
    session = await manager.create("s", window=Window(400))
    engine.script.append("a reply")
    first = await say(manager, session, conversation(user("a question")))
    await manager.push(session, lines(0, 8))
    await settled(session)
    await until(lambda: session.timeline.forgotten and not manager.moving(session))
    engine.script.append("again")
    await say(manager, session, conversation(user("a question"), assistant(first.message.content)))
    text = engine.tokenizer.decode(session.timeline.tokens)
    assert "a question<|im_end|>\n<|im_start|>assistant\na reply<|im_end|>\n<|im_start|>assistant\nagain" in text
    assert session.timeline.forgotten == ()


@pytest.mark.parametrize("window", [None, 900])
async def test_freezing_is_a_version(manager: Manager, window: int | None) -> None:
    heard = Heard()
    manager.listen(heard)
    session = await manager.create("s", type=BUILTIN["ohlcv"], window=Window(window))
    candle = {"o": 1, "h": 2, "l": 1, "c": 2, "v": 5}
    await manager.push(session, [candle, candle])
    await settled(session)
    end = await manager.freeze(session)
    assert (session.version, end, session.tokens) == (2, session.tokens, session.frozen_end)
    assert heard.moves == [("s", 2, 0)]
    assert session.statistics("stream")["count"] == 2
    assert session.statistics("window")["count"] == (2 if window is None else 0), "it is context now"
    await manager.freeze(session)
    assert session.version == 2, "nothing was left to freeze"
    await manager.push(session, [candle])
    await settled(session)
    assert session.statistics("window")["count"] == (3 if window is None else 1)
    assert held_tokens(session) == session.timeline.tokens
