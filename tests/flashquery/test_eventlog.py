"""Logs of events: bounded, and honest about what they have lost."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery import keys, replay
from flashquery.cursor import Cursor, Id
from flashquery.eventlog import EventLog, Page
from flashquery.events import Event, Hub, SubscriptionEnded
from flashquery.replay import Replay
from streams.journal import Journal
from tests.flashquery.kit import run

SECONDS = 30.0
EVER = 2**53


async def publish(redis: Redis, log: EventLog, session_id: str, *events: Event) -> None:
    for event in events:
        if event.kind == "deleted":
            await log.remember_deletion(session_id)
        await run(redis, log.publish(session_id, event))


def news(number: int) -> Event:
    return Event("data_updated", {"data_version": number}, "s")


CREATED, DELETED, CHANGED = (Event(kind, {}, "s") for kind in ("created", "deleted", "queries_changed"))


async def page(log: EventLog, after: Id, count: int = 10_000, session_id: str = "s") -> Page:
    return (await log.read({session_id: after}, EVER, count))[session_id]


def position(event: Event) -> Id:
    assert event.at is not None
    return event.at


async def test_what_is_published_is_kept_under_the_id_that_it_is_heard_with(redis: Redis) -> None:
    log = EventLog(redis, 100)
    async with Hub(redis, Journal(redis), backlog=100) as hub:
        with hub.subscribe("s") as subscription:
            await publish(redis, log, "s", CREATED, *map(news, range(5)), CHANGED, DELETED)
            heard = [await subscription.next(SECONDS) for _ in range(8)]
    assert heard == [CREATED, *map(news, range(5)), CHANGED, DELETED]
    ids = [event.at for event in heard if event is not None and event.kind != "queries_changed"]
    assert heard[6] is not None
    assert heard[6].at is None, "it is of no use later"
    assert None not in ids
    assert ids == sorted(set(ids))  # type: ignore[type-var]
    assert [event.at for event in (await page(log, (0, 0))).events] == ids[-1:]


async def test_a_log_is_read_from_any_event_on(redis: Redis) -> None:
    log = EventLog(redis, 100)
    await publish(redis, log, "s", CREATED, *map(news, range(5)))
    events = (await page(log, (0, 0))).events
    assert events == [CREATED, *map(news, range(5))]
    for number, event in enumerate(events):
        found = await page(log, position(event), count=2)
        assert found.before == event
        assert found.events == events[number + 1 : number + 3]
        assert found.follows(position(event), exactly=True)
    now = await log.now()
    assert (await log.read({"s": (0, 0)}, position(events[0])[0] - 1, 10))["s"].events == []
    assert now >= position(events[-1])[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(kept=st.sampled_from([1, 50, 100, 130]), published=st.integers(1, 600), told=st.integers(0, 599))
async def test_a_position_is_resumed_from_if_nothing_after_it_is_lost(
    redis: Redis, kept: int, published: int, told: int
) -> None:
    await redis.flushall()
    log, told = EventLog(redis, kept), min(told, published - 1)
    with_ids: list[Event] = []
    async with Hub(redis, Journal(redis), backlog=1000) as hub:
        with hub.subscribe("s") as subscription:
            await publish(redis, log, "s", *map(news, range(published)))
            for _ in range(published):
                event = await subscription.next(SECONDS)
                assert event is not None
                with_ids.append(event)
    after = position(with_ids[told])
    found = await page(log, after)
    complete = found.follows(after, exactly=True)
    # Redis trims whole nodes of 100 entries: more may be kept than asked for, never less.
    if published - told <= kept:
        assert complete
    if complete:
        assert found.events == with_ids[told + 1 :]
    else:
        assert len(found.events) < published - told, "it is not there itself"
    unlisted = (after[0] - 1, 2**64 - 1)
    found = await page(log, unlisted)
    if found.follows(unlisted, exactly=False):
        assert found.events == [event for event in with_ids if position(event) > unlisted]


async def test_a_position_of_an_unknown_past_is_not_resumed_from(redis: Redis) -> None:
    log = EventLog(redis, 100)
    nothing = await page(log, (5, 0))
    assert not nothing.follows((5, 0), exactly=True)
    assert not nothing.follows((5, 0), exactly=False), "a log that is gone says nothing"
    await publish(redis, log, "s", news(1))
    (first,) = (await page(log, (0, 0))).events
    at = position(first)
    for other in ((at[0], at[1] + 1), (at[0] + 60_000, 0)):
        assert not (await page(log, other)).follows(other, exactly=True), "Redis went back to an older state"
    assert not (await page(log, (5, 0))).follows((5, 0), exactly=False)


async def test_a_log_that_begins_after_the_position_lacks_nothing(redis: Redis) -> None:
    log = EventLog(redis, 100)
    await publish(redis, log, "s", CREATED, news(1))
    assert (await page(log, (5, 0))).follows((5, 0), exactly=False)


async def test_of_a_session_that_is_deleted_its_deletion_is_kept_for_a_while(redis: Redis) -> None:
    log = EventLog(redis, 100)
    before = await log.now()
    await publish(redis, log, "s", CREATED, *map(news, range(200)))
    assert 0 < await redis.ttl(keys.event_log("s")) <= keys.ANSWERS_SECONDS
    last = (await page(log, (0, 0))).events[-1]
    await publish(redis, log, "s", DELETED)
    found = await page(log, position(last))
    assert found.events == [DELETED]
    assert found.follows(position(last), exactly=True)
    assert 0 < await redis.ttl(keys.event_log("s")) <= keys.DELETED_SECONDS
    assert await log.deletions(before) == {"s"}
    assert await log.deletions(await log.now() + 1) == set()
    await publish(redis, log, "s", CREATED, news(1))
    found = await page(log, position(last))
    assert found.events == [DELETED, CREATED, news(1)], "one that is created anew is another"
    assert found.follows(position(last), exactly=True)
    ids = [position(event) for event in (last, *found.events)]
    assert ids == sorted(ids)


async def test_deletions_that_are_not_known_are_said_not_to_be(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "DELETIONS_MAX", 3)
    log = EventLog(redis, 100)
    now = await log.now()
    assert await log.deletions(now - 1000 * keys.DELETED_SECONDS - 60_000) is None, "it is too long ago"
    for number in range(4):
        await publish(redis, log, f"s{number}", DELETED)
    assert await log.deletions(now) is None, "there were too many"
    ((at, _),) = await redis.xrevrange(keys.DELETIONS, count=1)
    await redis.xadd(keys.DELETIONS, {"session": "later"}, id=f"{int(at.split(b'-')[0]) + 60_000}-0", maxlen=3)
    assert await log.deletions(int(at.split(b"-")[0]) + 1) == {"later"}


async def test_what_was_missed_of_several_sessions_comes_in_order(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_EVENTS", 6)
    log = EventLog(redis, 1000)
    for session_id in "abc":
        await publish(redis, log, session_id, CREATED)
    for number in range(20):
        for session_id in "abc"[: 1 + number % 3]:
            await publish(redis, log, session_id, news(number))
        await asyncio.sleep(0.001)
    pages = await log.read({"a": (0, 0), "b": (0, 0), "c": (0, 0)}, EVER, 100)
    everything = sorted((position(event), session_id) for session_id in pages for event in pages[session_id].events)
    told: list[tuple[Id, str]] = []
    cursor = Cursor(everything[0][0][0])
    for cut in (1, 5, 7, 100):
        one = Replay(log, cursor, EVER, 3)
        assert (await one.begin({"a", "b", "c"})).keys() == {"a", "b", "c"}
        for _ in range(cut):
            if (event := await one.next()) is not None:
                cursor = cursor.moved(event.session_id, position(event))
                told.append((position(event), event.session_id))
                assert one.told[event.session_id] == event.at
    assert told == everything


async def test_a_log_that_is_faster_than_its_reader_is_a_gap(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_EVENTS", 2)
    log = EventLog(redis, 1)
    await publish(redis, log, "s", CREATED, *map(news, range(4)))
    slow = Replay(log, Cursor(1), EVER, 1)
    assert await slow.begin({"s"}) == {"s": None}
    assert await slow.next() == CREATED
    await publish(redis, log, "s", *map(news, range(4, 500)))
    with pytest.raises(SubscriptionEnded, match="lagging"):
        await slow.next()
