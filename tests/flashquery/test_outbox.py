"""Writes on their way to Redis: in order, coalesced, and there after an outage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from flashquery.outbox import Outbox
from tests.flashquery.conftest import Store

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""


def note(text: str) -> Callable[[Pipeline], None]:
    """A write that can be counted, and whose place among others shows."""

    def write(pipe: Pipeline) -> None:
        pipe.rpush("log", text)

    return write


async def logged(redis: Redis) -> list[str]:
    return [entry.decode() for entry in await redis.lrange("log", 0, -1) if isinstance(entry, bytes)]


async def test_a_newer_write_replaces_an_unsent_one_in_its_place(redis: Redis) -> None:
    async with Outbox(redis) as outbox:
        outbox.put("s", "a", note("a1"))
        outbox.put("s", "b", note("b1"))
        outbox.put("t", "a", note("other session"))
        outbox.put("s", "a", note("a2"))
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["a2", "b1", "other session"]


async def test_of_writes_that_are_kept_the_newest_few_arrive_in_order(redis: Redis) -> None:
    async with Outbox(redis) as outbox:
        for number in range(5):
            outbox.put("s", "a", note(f"a{number}"), keep=3)
            outbox.put("s", "b", note(f"b{number}"))
        outbox.put("s", "c", note("c"), keep=3)
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["a2", "a3", "a4", "b4", "c"]
        outbox.put("s", "a", note("kept"), keep=3)
        outbox.put("s", "a", note("alone"))
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["a2", "a3", "a4", "b4", "c", "alone"]


PUTS = st.tuples(st.just("put"), st.sampled_from("st"), st.integers(1, 3))
DISCARDS = st.tuples(st.just("discard"), st.sampled_from("st"), st.just(0))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(rounds=st.lists(st.lists(PUTS | DISCARDS, max_size=8), max_size=3))
async def test_what_arrives_is_the_newest_of_each_key_in_order_of_first_put(
    redis: Redis, rounds: list[list[tuple[str, str, int]]]
) -> None:
    await redis.delete("log")
    expected: list[str] = []
    async with Outbox(redis) as outbox:
        for number, steps in enumerate(rounds):
            waiting: list[list[str]] = []
            for step, (operation, session, what) in enumerate(steps):
                key, text = f"{session}{what}", f"{session}{what} round {number} step {step}"
                if operation == "discard":
                    outbox.discard(session)
                    waiting = [entry for entry in waiting if entry[0][0] != session]
                    continue
                outbox.put(session, what, note(text))
                same = [entry for entry in waiting if entry[0] == key]
                if same:
                    same[0][1] = text
                else:
                    waiting.append([key, text])
            assert await outbox.flush(SECONDS)
            expected += [text for _, text in waiting]
    assert await logged(redis) == expected


async def test_a_write_put_while_its_predecessor_is_being_sent_follows_it(redis: Redis) -> None:
    async with Outbox(redis) as outbox:

        def first(pipe: Pipeline) -> None:
            pipe.rpush("log", "first")
            outbox.put("s", "a", note("second"))

        outbox.put("s", "a", first)
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["first", "second"]


async def test_writes_put_while_others_of_their_kind_are_being_sent_follow_them_once(redis: Redis) -> None:
    async with Outbox(redis) as outbox:

        def first(pipe: Pipeline) -> None:
            pipe.rpush("log", "first")
            outbox.put("s", "a", note("second"), keep=2)
            outbox.put("s", "a", note("third"), keep=2)

        outbox.put("s", "a", first, keep=2)
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["first", "second", "third"]


async def test_a_write_may_have_to_follow_what_was_put_before_it(redis: Redis) -> None:
    async with Outbox(redis) as outbox:

        def first(pipe: Pipeline) -> None:
            pipe.rpush("log", "a1")
            outbox.put("s", "b", note("b1"))
            outbox.put("s", "a", note("a2"), behind=True)
            outbox.put("s", "b", note("b2"))
            outbox.put("s", "c", note("c1"))
            outbox.put("s", "a", note("a3"), behind=True)

        outbox.put("s", "a", first, behind=True)
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == ["a1", "b2", "c1", "a3"]


async def test_discarding_everything_leaves_nothing_to_wait_for(redis: Redis) -> None:
    async with Outbox(redis) as outbox:
        outbox.put("s", "a", note("a"))
        outbox.discard("s")
        assert await outbox.flush(SECONDS)
        assert await logged(redis) == []


async def test_writes_wait_for_a_redis_that_is_away_and_arrive_once_each_as_they_last_were(store: Store) -> None:
    async with Outbox(store.redis) as outbox:
        outbox.put("s", 0, note("before"))
        assert await outbox.flush(SECONDS)
        await store.stop()
        for number in range(300):
            outbox.put("s", number % 3, note(f"{number % 3}: {number}"))
        outbox.put("gone", 0, note("never"))
        assert not await outbox.flush(0.05)
        assert outbox.failing
        outbox.discard("gone")
        await store.start()
        assert await outbox.flush(SECONDS)
        assert not outbox.failing
        assert await logged(store.redis) == ["before", "0: 297", "1: 298", "2: 299"]


async def test_a_redis_that_hangs_gets_the_latest_state_when_it_wakes(store: Store) -> None:
    def value(text: str) -> Callable[[Pipeline], None]:
        def write(pipe: Pipeline) -> None:
            pipe.set("value", text)

        return write

    async with Outbox(store.redis) as outbox:
        store.freeze()
        try:
            outbox.put("s", "value", value("old"))
            assert not await outbox.flush(0.05)
            outbox.put("s", "value", value("new"))
        finally:
            store.thaw()
        assert await outbox.flush(SECONDS)
        assert await store.redis.get("value") == b"new"


async def test_leaving_sends_what_waits(redis: Redis) -> None:
    async with Outbox(redis) as outbox:
        outbox.put("s", "a", note("a"))
    assert await logged(redis) == ["a"]


async def test_leaving_while_redis_is_away_ends_the_sending_task(store: Store) -> None:
    before = asyncio.all_tasks()
    async with Outbox(store.redis) as outbox:
        await store.stop()
        outbox.put("s", "a", note("a"))
    assert asyncio.all_tasks() <= before
