"""Events from Redis to every subscriber of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import chain

import pytest
from redis.asyncio import Redis

from flashquery import events as events_module
from flashquery.eventlog import EventLog
from flashquery.events import Event, Hub, Subscription, SubscriptionEnded
from streams.errors import Unavailable
from streams.journal import Journal
from tests.flashquery.conftest import Store
from tests.flashquery.kit import run

SECONDS = 30.0
"""Bound of every wait, far above what one takes."""


@pytest.fixture
async def hub(redis: Redis) -> AsyncIterator[Hub]:
    async with Hub(redis, Journal(redis), backlog=3) as hub:
        yield hub


def news(number: int, session_id: str = "s") -> Event:
    return Event("data_updated", {"data_version": number}, session_id)


def end(session_id: str) -> Event:
    return Event("deleted", {}, session_id)


async def publish(redis: Redis, *events: Event) -> None:
    log = EventLog(redis, 1000)
    await run(redis, chain.from_iterable(log.publish(event.session_id, event) for event in events))


async def ending(subscription: Subscription) -> str:
    """Read up to the end; why it ended."""
    try:
        while await subscription.next(SECONDS) is not None:
            continue
    except SubscriptionEnded as ended:
        return ended.reason
    return "not ended"


async def test_every_subscriber_of_a_session_gets_its_events_in_order_and_no_others(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s") as one, hub.subscribe("s") as two, hub.subscribe("t") as other:
        await publish(redis, news(1), news(2))
        await publish(redis, news(9, "t"))
        assert [await one.next(SECONDS), await one.next(SECONDS)] == [news(1), news(2)]
        assert [await two.next(SECONDS), await two.next(SECONDS)] == [news(1), news(2)]
        assert await other.next(SECONDS) == news(9, "t")
        assert await one.next(0) is None


async def test_a_subscriber_that_falls_behind_is_ended_and_others_are_not(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s") as slow, hub.subscribe("s") as quick:
        for number in range(10):
            await publish(redis, news(number))
            assert await quick.next(SECONDS) == news(number)
        assert await ending(slow) == "lagging"


async def test_a_subscriber_that_is_just_not_behind_loses_nothing(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s") as full, hub.subscribe("s") as quick:
        for number in range(3):
            await publish(redis, news(number))
            await quick.next(SECONDS)
        assert [await full.next(0) for _ in range(3)] == [news(0), news(1), news(2)]
        await publish(redis, news(3))
        assert await full.next(SECONDS) == news(3)


async def test_a_burst_does_not_end_a_subscriber_that_keeps_up(redis: Redis) -> None:
    async with Hub(redis, Journal(redis), backlog=100) as hub:
        with hub.subscribe("s") as quick:

            async def keep_up() -> list[Event | None]:
                return [await quick.next(SECONDS) for _ in range(1000)]

            reading = asyncio.create_task(keep_up())
            await publish(redis, *map(news, range(1000)))
            assert await reading == list(map(news, range(1000)))


async def test_what_came_before_the_deletion_is_delivered_and_nothing_after(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s") as subscription, hub.subscribe("t") as other:
        await publish(redis, news(1), end("s"), news(2))
        assert [await subscription.next(SECONDS) for _ in range(2)] == [news(1), end("s")]
        assert await ending(subscription) == "deleted"
        await publish(redis, news(1, "t"))
        assert await other.next(SECONDS) == news(1, "t")


async def test_sessions_that_were_named_are_heard_until_the_last_of_them_is_deleted(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s", "t", "s") as both:
        await publish(redis, news(1), end("s"), news(2), news(3, "t"))
        assert [await both.next(SECONDS) for _ in range(3)] == [news(1), end("s"), news(3, "t")]
        await publish(redis, end("t"))
        assert await both.next(SECONDS) == end("t")
        assert await ending(both) == "deleted"
    assert hub.subscribers == 0


async def test_a_prefix_hears_of_every_session_that_comes_goes_and_comes_again(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("a1", prefix="a") as some, hub.subscribe(prefix="") as every:
        came = Event("created", {}, "a1")
        await publish(redis, came, news(1, "b1"), end("a1"))
        assert [await every.next(SECONDS) for _ in range(3)] == [came, news(1, "b1"), end("a1")]
        assert [await some.next(SECONDS) for _ in range(2)] == [came, end("a1")], "each once, and no others"
        await publish(redis, came, news(1, "a1"))
        assert [await some.next(SECONDS) for _ in range(2)] == [came, news(1, "a1")]


async def test_what_waits_of_all_sessions_counts_together(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s", "t", "u", "v") as slow, hub.subscribe(prefix="v") as quick:
        await publish(redis, *(news(1, session_id) for session_id in "stuv"))
        assert await quick.next(SECONDS) == news(1, "v")
        assert await ending(slow) == "lagging"


async def test_events_of_a_kind_can_be_pulled_out_of_their_turn() -> None:
    subscription = Subscription(4, ())
    ack, other = Event("push_ack", {}, "s"), Event("push_ack", {}, "t")
    for event in (news(1), ack, news(2), other):
        subscription.offer(event)
    assert subscription.pull("push_ack") == [ack, other]
    assert subscription.pull("push_ack") == []
    assert [await subscription.next(0) for _ in range(3)] == [news(1), news(2), None]


async def test_a_subscription_ends_with_its_block_however_that_ends(hub: Hub) -> None:
    with hub.subscribe("s"):
        with pytest.raises(RuntimeError), hub.subscribe("s"):
            raise RuntimeError
        assert hub.subscribers == 1
    assert hub.subscribers == 0


async def test_a_lost_connection_makes_subscribers_start_again(hub: Hub, redis: Redis) -> None:
    with hub.subscribe("s") as subscription:
        await redis.client_kill_filter(_type="pubsub", skipme=False)
        assert await ending(subscription) == "resync"
    with hub.subscribe("s") as subscription:
        await publish(redis, news(1))
        assert await subscription.next(SECONDS) == news(1)


async def test_an_outage_makes_subscribers_start_again_once_events_come_through(store: Store) -> None:
    async with Hub(store.redis, Journal(store.redis), backlog=3) as hub:
        with hub.subscribe("s") as subscription:
            await store.stop()
            await store.start()
            assert await ending(subscription) == "resync"
        with hub.subscribe("s") as subscription:
            await publish(store.redis, news(1))
            assert await subscription.next(SECONDS) == news(1)


async def test_a_subscriber_that_comes_during_an_outage_is_not_left_with_a_gap(store: Store) -> None:
    async with Hub(store.redis, Journal(store.redis), backlog=3) as hub:
        await store.stop()
        with hub.subscribe("s") as early:
            await store.start()
            assert await ending(early) == "resync"


async def test_closing_ends_every_subscription_present_and_future(redis: Redis) -> None:
    before = asyncio.all_tasks()
    async with Hub(redis, Journal(redis), backlog=3) as hub:
        with hub.subscribe("s") as present:
            hub.close()
            assert await ending(present) == "shutdown"
        with hub.subscribe("s") as future:
            assert await ending(future) == "shutdown"
    assert asyncio.all_tasks() <= before


async def test_a_redis_that_does_not_answer_is_said_at_the_start(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_START_SECONDS", 0.05)
    before = asyncio.all_tasks()
    await store.stop()
    with pytest.raises(Unavailable):
        await Hub(store.redis, Journal(store.redis), backlog=3).__aenter__()
    assert asyncio.all_tasks() <= before
