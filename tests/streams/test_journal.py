"""Writes on their way to Redis: in order, atomic, coalesced, never twice, and there after an outage."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from streams import keys
from streams.errors import Unavailable
from streams.journal import UNSURE, Command, Journal
from tests.losing import Losing

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""


def note(text: str, session_id: str = "s") -> list[Command]:
    """A write that can be counted, and whose place among others shows."""
    return [("RPUSH", f"{{{session_id}}}:notes", text)]


async def noted(redis: Redis, session_id: str = "s") -> list[str]:
    return [entry.decode() for entry in await redis.lrange(f"{{{session_id}}}:notes", 0, -1)]


async def own(redis: Redis, journal: Journal, *session_ids: str) -> None:
    """Have sessions as their new owner."""
    for session_id in session_ids:
        fence = await redis.hincrby(keys.guard(session_id), "fence", 1)
        await redis.hdel(keys.guard(session_id), "batch")
        journal.open(session_id, fence)


@contextlib.asynccontextmanager
async def writing(redis: Redis, *session_ids: str, **options: Any) -> AsyncIterator[Journal]:
    async with Journal(redis, **options) as journal:
        await own(redis, journal, *session_ids)
        yield journal


async def test_records_arrive_in_order_and_are_applied_in_order_before_they_are_confirmed(redis: Redis) -> None:
    applied: list[int] = []
    async with writing(redis, "s") as journal:
        log = keys.log("s")
        await asyncio.gather(
            *(journal.write("s", [("LOG", log, str(number))], applied.append) for number in range(100))
        )
        assert applied == list(range(1, 101))
        entries = await redis.xrange(log)
    assert [(entry_id, fields[b"record"]) for entry_id, fields in entries] == [
        (b"%d-0" % (number + 1), b"%d" % number) for number in range(100)
    ]


async def test_what_is_handed_in_during_a_round_trip_shares_the_next(losing: Losing) -> None:
    async with writing(losing, "s", "t") as journal:
        await journal.write("s", note("first"))
        trips = losing.round_trips
        losing.gate.clear()
        writes = [asyncio.create_task(journal.write(one, note("more", one))) for one in "st" for _ in range(50)]
        await asyncio.sleep(0.01)
        losing.gate.set()
        await asyncio.gather(*writes)
        assert losing.round_trips - trips <= 2
        assert len(await noted(losing, "t")) == 50


async def test_a_newer_state_replaces_an_unsent_one_in_its_place_or_behind(redis: Redis) -> None:
    async with writing(redis, "s") as journal:
        journal.put("s", "a", note("a1"))
        journal.put("s", "b", note("b1"))
        journal.put("s", "a", note("a2"))
        journal.put("s", "c", note("c1"))
        journal.put("s", "b", note("b2"), behind=True)
        assert await journal.flush(SECONDS)
        assert await noted(redis) == ["a2", "c1", "b2"]


STEPS = st.tuples(st.sampled_from(["put", "behind", "write"]), st.sampled_from("st"), st.integers(1, 3))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(rounds=st.lists(st.tuples(st.lists(STEPS, max_size=8), st.integers(0, 2)), max_size=3))
async def test_all_records_and_the_newest_of_each_state_arrive_once_however_often_replies_are_lost(
    losing: Losing, rounds: list[tuple[list[tuple[str, str, int]], int]]
) -> None:
    await losing.delete("{s}:notes", "{t}:notes")
    records: dict[str, list[str]] = {"s": [], "t": []}
    newest: dict[tuple[str, int], str] = {}
    async with writing(losing, "s", "t") as journal:
        for number, (steps, losses) in enumerate(rounds):
            writes = []
            losing.gate.clear()
            losing.losses = losses
            for step, (operation, session_id, what) in enumerate(steps):
                text = f"{operation} {what}, round {number}, step {step}"
                if operation == "write":
                    records[session_id].append(text)
                    writes.append(asyncio.create_task(journal.write(session_id, note(text, session_id))))
                    await asyncio.sleep(0)
                else:
                    newest[session_id, what] = text
                    journal.put(session_id, what, note(text, session_id), behind=operation == "behind")
            losing.gate.set()
            await asyncio.gather(*writes)
            assert await journal.flush(SECONDS)
            for session_id in "st":
                arrived = await noted(losing, session_id)
                assert len(arrived) == len(set(arrived))
                assert [text for text in arrived if text.startswith("write")] == records[session_id]
                for (owner, what), text in newest.items():
                    of_this = [one for one in arrived if not one.startswith("write") and one.split()[1] == f"{what},"]
                    assert owner != session_id or of_this[-1] == text


async def test_a_write_that_another_owner_makes_impossible_is_refused_and_told(redis: Redis) -> None:
    lost: list[str] = []
    async with writing(redis, "s", "t", lost=lost.append) as journal, Journal(redis) as other:
        await journal.write("s", note("mine"))
        await own(redis, other, "s")
        await other.write("s", note("theirs"))
        journal.put("s", "state", note("late"))
        with pytest.raises(Unavailable) as refused:
            await journal.write("s", note("late"))
        assert (refused.value.code, lost) == ("session_moved", ["s"])
        with pytest.raises(Unavailable):
            await journal.write("s", note("later"))
        journal.put("s", "state", note("later"))
        await journal.write("t", note("goes on", "t"))
        await other.write("s", note("theirs too"))
    assert await noted(redis) == ["mine", "theirs", "theirs too"]


async def test_a_write_that_did_not_leave_is_taken_back_and_one_that_may_have_is_not(losing: Losing) -> None:
    applied: list[str] = []
    async with writing(losing, "s") as journal:
        losing.gate.clear()
        with pytest.raises(Unavailable) as unsure:
            await journal.write("s", note("sent"), lambda _: applied.append("sent"), timeout=0.05)
        with pytest.raises(Unavailable) as sure:
            await journal.write("s", note("never sent"), lambda _: applied.append("never sent"), timeout=0.05)
        assert (unsure.value.code, sure.value.code) == (UNSURE, "store_unavailable")
        lock = asyncio.Lock()
        with pytest.raises(Unavailable):
            async with journal.changing("s", lock, 0.05):
                raise AssertionError
        losing.gate.set()
        async with journal.changing("s", lock, SECONDS):
            assert applied == ["sent"]
            with pytest.raises(Unavailable) as busy:
                async with journal.changing("s", lock, 0.05):
                    raise AssertionError
            assert busy.value.code == "session_busy"
        assert not lock.locked()
    assert await noted(losing) == ["sent"]


async def test_records_that_wait_are_bounded(losing: Losing) -> None:
    async with writing(losing, "s", limit=1000) as journal:
        losing.gate.clear()
        journal.check_room(1000)
        writing_it = asyncio.create_task(journal.write("s", note("x" * 900)))
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable):
            journal.check_room(200)
        losing.gate.set()
        await writing_it
        journal.check_room(1000)


async def test_a_server_that_forgot_the_script_is_taught_again(redis: Redis) -> None:
    async with writing(redis, "s", "t") as journal:
        await asyncio.gather(journal.write("s", note("one")), journal.write("t", note("one", "t")))
        await redis.script_flush()
        await asyncio.gather(journal.write("s", note("two")), journal.write("t", note("two", "t")))
        assert not journal.failing
    assert (await noted(redis), await noted(redis, "t")) == (["one", "two"], ["one", "two"])


async def test_what_was_written_is_applied_though_nobody_waits_any_more(losing: Losing) -> None:
    applied: list[int] = []
    async with writing(losing, "s") as journal:
        losing.gate.clear()
        waiting = asyncio.create_task(journal.write("s", note("left"), applied.append))
        await asyncio.sleep(0.01)
        waiting.cancel()
        losing.gate.set()
        assert await journal.flush(SECONDS)
        assert applied == [0]


async def test_one_session_s_write_that_cannot_be_applied_does_not_stop_the_others(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise RuntimeError("a bug")

    async with writing(redis, "s", "t") as journal:
        with pytest.raises(RuntimeError):
            await journal.write("s", note("kept"), fail)
        await journal.write("t", note("fine", "t"))
    assert "could not be applied" in caplog.text
