"""Sessions from their logs: what comes back is what there was, whenever the process ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from streams import keys, log
from streams.engine.base import Sampling
from streams.entries import BUILTIN
from streams.errors import Conflict, ContextLengthExceeded
from streams.leases import Replica
from streams.messages import Conversation, Message, Shape
from streams.session import Session
from streams.window import Window
from tests.streams.kit import SECONDS, settled, until
from tests.streams.server import Server, serving

READING = {"sid": "boiler", "val": 21.5, "lo": 0.0, "hi": 100.0}


def shown(session: Session) -> dict[str, Any]:
    """All of a session that must come back."""
    return {
        "options": (session.type and session.type.name, session.window, session.pre_decode, session.labels),
        "created": session.created,
        "system": session.system,
        "frame": session.frame,
        "snapshot": session.snapshot(),
        "timeline": session.timeline,
        "counters": (session.version, session.turns, session.batches, session.entries, session.evicted),
        "queue": (session.pending, session.queue.total_pushed, session.queue.total_dropped, session.covered),
        "statistics": [session.statistics("window"), session.statistics("stream")],
    }


async def turn(server: Server, session: Session, *said: Message) -> Message:
    async with server.manager.chat.reply(Conversation(said), Shape(), Sampling(max_tokens=8), session) as reply:
        async for _ in reply.deltas():
            continue
    return reply.message


async def test_a_session_comes_back_with_all_that_it_was(redis: Redis) -> None:
    async with serving(redis) as server:
        session = await server.manager.create(
            "s", "You watch.", type=BUILTIN["iot"], window=Window(2048, 3600.0), labels=frozenset({"old"})
        )
        for value in range(5):
            await server.manager.push(session, [READING | {"val": value}, "a remark"])
            await settled(session)
        said = Message("user", "Hot?")
        replied = await turn(server, session, said)
        await server.manager.push(session, [READING])
        await settled(session)
        await turn(server, session, said, replied, Message("user", "And now?"))
        before = shown(session)
    async with serving(redis) as server:
        session = server.manager.get("s")
        assert shown(session) == before
        assert server.heard.adoptions == ["s"]
        await until(lambda: session.kv_tokens == session.tokens)
        await server.manager.push(session, [READING])
        await settled(session)
        assert session.version == before["counters"][0] + 1


async def test_what_turns_computed_was_in_an_engine_that_is_gone(redis: Redis) -> None:
    async with serving(redis) as server:
        session = await server.manager.create("s")
        await turn(server, session, Message("user", "Hot?"))
        assert session.computed > 0
    async with serving(redis) as server:
        assert server.manager.get("s").computed == 0


async def test_an_edited_history_comes_back_as_it_was_cut(redis: Redis) -> None:
    async with serving(redis) as server:
        session = await server.manager.create("s")
        said = Message("user", "First?")
        replied = await turn(server, session, said)
        await server.manager.push(session, ["data"])
        await settled(session)
        await turn(server, session, Message("system", "Be brief."), said, replied, Message("user", "Second?"))
        await turn(server, session, Message("user", "Something else?"))
        before = shown(session)
        assert session.turns == 3
    async with serving(redis) as server:
        assert shown(server.manager.get("s")) == before


@pytest.mark.parametrize("small", [1, 1 << 20])
async def test_a_window_that_moved_comes_back_where_it_was_and_what_it_left_is_trimmed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr(log, "_SMALL", small)
    async with serving(redis) as server:
        session = await server.manager.create("s", type=BUILTIN["iot"], window=Window(1024))
        await server.manager.push(session, ["kept for good"])
        await server.manager.freeze(session)
        for value in range(120):
            await server.manager.push(session, [READING | {"val": value}])
            await settled(session)
        await until(lambda: not server.manager.moving(session))
        assert session.evicted > 50
        before = shown(session)
        await server.journal.flush(SECONDS)
    kept = await redis.xlen(keys.log("s"))
    assert (kept < 200) == (small == 1), "each of the 120 was pushed, and settled"
    async with serving(redis) as server:
        assert shown(server.manager.get("s")) == before


async def test_what_was_accepted_and_not_read_is_read_after_the_restart(redis: Redis) -> None:
    async with serving(redis, queue_entries=4) as server:
        session = await server.manager.create("s")
        await server.manager.push(session, ["read"])
        await settled(session)
        server.engine.ingest_gate.clear()
        await server.manager.push(session, ["taken 1", "taken 2"])
        await until(lambda: not len(session.queue))
        acks = [await server.manager.push(session, [f"waiting {number}"]) for number in range(6)]
        assert [ack.dropped for ack in acks] == [0, 0, 0, 0, 1, 1]
    async with serving(redis, queue_entries=4) as server:
        session = server.manager.get("s")
        assert (session.queue.total_pushed, session.queue.total_dropped) == (9, 2)
        await settled(session)
        text = server.engine.tokenizer.decode(session.snapshot().tokens[len(session.frame.head) :])
        assert text.splitlines() == ["read", "taken 1", "taken 2", *(f"waiting {number}" for number in range(2, 6))]
        assert session.version > 1


async def test_a_deleted_session_stays_away_and_its_name_is_free(redis: Redis) -> None:
    async with serving(redis) as server:
        session = await server.manager.create("s")
        await server.manager.push(session, ["old"])
        await server.manager.delete("s")
        assert [key async for key in redis.scan_iter() if b"guard" not in key] == []
    async with serving(redis) as server:
        assert server.manager.sessions() == []
        session = await server.manager.create("s")
        assert session.version == 0
    async with serving(redis) as server:
        assert server.manager.get("s").queue.total_pushed == 0


async def test_idle_time_goes_on_where_it_was_and_downtime_is_nobody_s(redis: Redis) -> None:
    async with serving(redis) as server:
        session = await server.manager.create("s")
        session.last_used -= 1000
        await server.ownership._renew()
    meta = await redis.hgetall(keys.meta("s"))
    # A server that was down for a day.
    await redis.hset(
        keys.meta("s"),
        mapping={name: float(meta[name]) - 86_400 for name in (b"last_used", b"seen")},
    )
    async with serving(redis) as server:
        assert 990 < time.time() - server.manager.get("s").last_used < 1060


async def test_another_model_s_session_is_left_alone(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(redis) as server:
        await server.manager.create("s")
    stored = await redis.hget(keys.meta("s"), "options")
    assert stored is not None
    await redis.hset(keys.meta("s"), "options", stored.replace(b"fast", b"slow"))
    async with serving(redis) as server:
        assert server.manager.sessions() == []
        assert "another model" in caplog.text
        with pytest.raises(Conflict):
            await server.manager.create("s")
    assert await redis.hget(keys.meta("s"), "options")


async def test_two_servers_have_each_their_own_and_a_dead_one_s_are_adopted_in_time(redis: Redis) -> None:
    other = Replica("other", "http://127.0.0.1:2")
    async with serving(redis, other, seconds=1.0) as survivor:
        async with serving(redis, seconds=1.0) as owner:
            session = await owner.manager.create("s")
            await owner.manager.push(session, ["data"])
            await settled(session)
            with pytest.raises(Conflict):
                await survivor.manager.create("s")
            await asyncio.sleep(1.2)
            assert survivor.manager.sessions() == []
            before = shown(session)
        await until(lambda: survivor.manager.sessions())
        assert shown(survivor.manager.get("s")) == before


async def test_an_owner_that_was_believed_dead_loses_what_it_had(redis: Redis) -> None:
    other = Replica("other", "http://127.0.0.1:2")
    async with serving(redis) as owner:
        session = await owner.manager.create("s")
        await owner.manager.push(session, ["data"])
        await settled(session)
        await redis.delete(keys.owner("s"))
        async with serving(redis, other) as survivor:
            assert survivor.manager.get("s").version == 1
            await owner.ownership._renew()
            await until(lambda: owner.heard.losses)
            assert owner.manager.sessions() == []
            assert owner.heard.losses == ["s"]
            assert owner.heard.deletions == []
            await survivor.manager.push(survivor.manager.get("s"), ["more"])
            await settled(survivor.manager.get("s"))
            assert survivor.manager.get("s").version == 2


STEP = st.sampled_from(["push", "push three", "push and read", "turn", "edit", "freeze", "restart"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(steps=st.lists(STEP, min_size=1, max_size=12), windowed=st.booleans(), small=st.booleans())
async def test_whatever_happened_comes_back(redis: Redis, steps: list[str], windowed: bool, small: bool) -> None:
    await redis.flushall()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "_SMALL", 1 if small else 1 << 20)
        said: list[Message] = []
        before: dict[str, Any] | None = None
        for part in _parts(steps):
            async with serving(redis) as server:
                if before is None:
                    window = Window(1024 if windowed else None)
                    session = await server.manager.create("s", type=BUILTIN["iot"], window=window)
                else:
                    session = server.manager.get("s")
                    assert shown(session) == before
                await _happen(server, session, part, said)
                before = shown(session)


def _parts(steps: list[str]) -> list[list[str]]:
    """The steps between restarts; nothing happens after the last."""
    parts: list[list[str]] = [[]]
    for step in steps:
        if step == "restart":
            parts.append([])
        else:
            parts[-1].append(step)
    return [*parts, []]


async def _happen(server: Server, session: Session, steps: list[str], said: list[Message]) -> None:
    for step in steps:
        match step:
            case "push" | "push three" | "push and read":
                items = [READING | {"val": number} for number in range(3 if step == "push three" else 1)]
                await server.manager.push(session, [*items, "x" * 60])
            case "turn":
                said += [Message("user", f"Question {len(said)}?")]
                said += [await turn(server, session, *said)]
            case "edit":
                said[:] = [Message("user", "Something else?")]
                said += [await turn(server, session, *said)]
            case "freeze":
                with contextlib.suppress(Conflict, ContextLengthExceeded):
                    await server.manager.freeze(session)
        if step == "push and read":
            await settled(session)
    await settled(session)
    await until(lambda: not server.manager.moving(session))
    await server.journal.flush(SECONDS)
