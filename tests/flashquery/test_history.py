"""Past answers: kept in order, bounded, and over outages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery import keys
from flashquery.answers import Answer
from flashquery.history import History
from tests.flashquery.kit import Rig, arrived, flashing, run
from tests.streams.kit import until

VERSIONS = st.integers(1, 12)


def answer(version: int, value: str = "up") -> Answer:
    return Answer(value, version, 1.5, 1_790_000_000.25 + version, changed=version % 2 == 1)


async def save(redis: Redis, history: History, *answers: Answer) -> None:
    for one in answers:
        await run(redis, history.save("s", 1, one))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    versions=st.lists(VERSIONS, max_size=20),
    kept=st.integers(0, 6),
    since=st.none() | st.integers(0, 13),
    limit=st.integers(1, 8),
)
async def test_it_is_the_newest_answers_one_per_version(
    redis: Redis, versions: list[int], kept: int, since: int | None, limit: int
) -> None:
    await redis.delete(keys.history("s", 1))
    history = History(redis, kept)
    model: dict[int, Answer] = {}
    for number, version in enumerate(versions):
        await save(redis, history, answer(version, str(number)))
        model[version] = answer(version, str(number))
        model = dict(sorted(model.items())[max(0, len(model) - kept) :])
    found = [one for version, one in model.items() if since is None or version > since]
    assert await history.read("s", 1, since, limit) == (found[:limit], len(found) > limit)


async def test_what_is_written_again_after_an_outage_is_there_once(redis: Redis) -> None:
    history = History(redis, 10)
    await save(redis, history, answer(1), answer(2))
    await save(redis, history, answer(1), answer(2), answer(3))
    assert await history.read("s", 1, None, 10) == ([answer(1), answer(2), answer(3)], False)


async def test_what_a_killed_server_leaves_is_collected_in_the_end(redis: Redis) -> None:
    await save(redis, History(redis, 10), answer(1))
    assert 0 < await redis.ttl(keys.history("s", 1)) <= keys.ANSWERS_SECONDS


@pytest.fixture
async def rig(redis: Redis) -> AsyncIterator[Rig]:
    async with flashing(redis, history=4) as rig:
        yield rig


async def test_every_answer_is_remembered_and_whether_it_changed(rig: Rig) -> None:
    session = await rig.manager.create("s")
    await rig.flash.register(session, "trend?")
    await rig.flash.register(session, "another?", every=2)
    values = []
    for version in range(1, 7):
        await rig.push(session, "price")
        await until(lambda version=version: len(rig.evaluations) == version + (version + 1) // 2)
        await arrived(rig)
        newest = (await rig.stored("s")).get(1)
        assert newest is not None
        values.append(newest.value)
    answers, more = await rig.history.read("s", 1, None, 10)
    assert [one.version for one in answers] == [3, 4, 5, 6]
    assert [one.value for one in answers] == values[2:]
    assert [one.changed for one in answers] == [values[i] != values[i - 1] for i in range(2, 6)]
    assert not more
    assert [one.version for one in (await rig.history.read("s", 2, None, 10))[0]] == [1, 3, 5]


async def test_it_goes_with_its_query_and_with_its_session(rig: Rig, redis: Redis) -> None:
    session = await rig.manager.create("s")
    for number in (1, 2, 3):
        await rig.flash.register(session, f"question {number}?")
    await rig.push(session, "price")
    await until(lambda: len(rig.evaluations) == 3)
    await arrived(rig)
    await rig.flash.remove(session, 1)
    await arrived(rig)
    assert await redis.exists(keys.history("s", 1)) == 0
    assert await redis.exists(keys.history("s", 2), keys.history("s", 3)) == 2
    await rig.manager.delete("s")
    assert await redis.exists(keys.history("s", 2), keys.history("s", 3)) == 0
