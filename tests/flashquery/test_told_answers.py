"""What is told of answers is what Redis has, and no sooner than it has that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import redis as synchronous
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from flashquery import answers, evaluator, keys
from flashquery.events import Hub
from streams import keys as stream_keys
from streams.errors import Conflict, NotFound, Unavailable
from streams.journal import Journal
from streams.leases import Replica
from streams.session import Session
from tests.flashquery.kit import ME, Rig, arrived, flashing, ready
from tests.losing import Losing
from tests.streams.kit import SECONDS, settled, until

OTHER = Replica("other", "http://127.0.0.1:2")


@pytest.fixture
async def rig(losing: Losing) -> AsyncIterator[Rig]:
    async with flashing(losing) as rig:
        yield rig


async def answered(rig: Rig, session: Session, text: str) -> int:
    """A query with an answer of the first version, while no further question is answered; its number."""
    query = await rig.flash.register(session, text)
    await rig.push(session, "price")
    await until(lambda: rig.flash.match(session, text))
    rig.engine.generate_gate.clear()
    return query.id


async def renewed(rig: Rig, session: Session) -> None:
    """There is another version, over which the engine is asked; nothing is on its way to Redis."""
    await rig.push(session, "price")
    await until(lambda: rig.engine.running)
    await arrived(rig)


async def computed(rig: Rig) -> None:
    """The engine has answered, and what it said is handed in."""
    done = len(rig.evaluations)
    rig.engine.generate_gate.set()
    await until(lambda: len(rig.evaluations) > done)
    rig.engine.generate_gate.clear()


async def test_an_answer_is_told_once_it_is_stored(losing: Losing, rig: Rig) -> None:
    session = await rig.manager.create("s")
    query_id = await answered(rig, session, "trend?")
    older = rig.flash.look(session).answers
    assert older == await rig.stored("s")
    await renewed(rig, session)
    losing.gate.clear()
    await computed(rig)
    await until(lambda: losing.waiting)
    assert (rig.flash.look(session).answers, rig.flash.match(session, "trend?")) == (older, None)
    losing.gate.set()
    await arrived(rig)
    assert rig.flash.look(session).answers == await rig.stored("s") != older
    assert rig.flash.look(session).answers[query_id].version == 2


async def test_an_answer_that_another_owner_makes_impossible_is_never_told(losing: Losing, rig: Rig) -> None:
    session = await rig.manager.create("s")
    query_id = await answered(rig, session, "trend?")
    await renewed(rig, session)
    losing.gate.clear()
    await computed(rig)
    await until(lambda: losing.waiting)
    await losing.hincrby(stream_keys.guard("s"), "fence", 1)
    look = rig.flash.look(session)
    losing.gate.set()
    await until(lambda: not rig.manager.knows("s"))
    assert look.answers[query_id].version == (await rig.stored("s"))[query_id].version == 1
    assert rig.flash._standing == {}
    with pytest.raises(NotFound):
        rig.flash.look(session)


async def test_a_late_answer_to_another_question_than_it_is_now_is_not_told_and_does_not_stay(
    losing: Losing, rig: Rig
) -> None:
    session = await rig.manager.create("s")
    query_id = await answered(rig, session, "trend?")
    await renewed(rig, session)
    losing.gate.clear()
    changing = asyncio.create_task(rig.flash.change(session, query_id, max_tokens=1))
    await until(lambda: losing.waiting)
    await computed(rig)
    losing.gate.set()
    await changing
    await until(lambda: rig.engine.running)
    assert (rig.flash.look(session).answers, rig.flash.match(session, "trend?")) == ({}, None)
    await arrived(rig)
    assert await rig.stored("s") == rig.flash.look(session).answers == {}
    rig.engine.generate_gate.set()
    await until(lambda: rig.flash.match(session, "trend?"))
    assert [answer.finish_reason for answer in rig.flash.look(session).answers.values()] == ["length"]


async def test_who_adopts_a_session_tells_what_redis_has(redis: Redis) -> None:
    async with flashing(redis) as rig:
        session = await rig.manager.create("s")
        await answered(rig, session, "trend?")
        await rig.flash.register(session, "another?")
        stored = await rig.stored("s")
    async with flashing(redis) as rig:
        rig.engine.generate_gate.clear()
        await rig.ownership._adopt()
        look = rig.flash.look(rig.manager.get("s"))
        assert ([query.text for query in look.queries], look.answers) == (["trend?", "another?"], stored)
        assert rig.flash.match(rig.manager.get("s"), "trend?")


async def test_what_is_heard_of_can_be_looked_at(losing: Losing, redis: Redis, rig: Rig) -> None:
    session = await rig.manager.create("s")
    query_id = await answered(rig, session, "trend?")
    await renewed(rig, session)
    async with Hub(redis, Journal(redis), backlog=100) as elsewhere:
        with elsewhere.subscribe("s") as others, rig.hub.subscribe("s") as early:
            losing.replies.clear()
            await computed(rig)
            # Redis has it, everybody is told, and the one process that has sent it does not know yet.
            assert (await ready(others))["data_version"] == 2
            with rig.hub.subscribe("s") as late:
                assert rig.flash.look(session).answers[query_id].version == 1
                assert await early.next(0) is None
                losing.replies.set()
                for subscription in (early, late):
                    assert (await ready(subscription))["data_version"] == 2
                    assert rig.flash.look(session).answers[query_id].version == 2


@dataclass(frozen=True)
class Step:
    """One thing done."""

    operation: str
    query: int
    value: int


@dataclass(frozen=True)
class Round:
    """What is done at once.

    Attributes:
        away: the store is meanwhile.
        losses: replies that are lost.
        moves: another server has the session afterwards.
    """

    steps: list[Step]
    away: bool
    losses: int
    moves: bool


STEPS = st.builds(
    Step, st.sampled_from(["push", "register", "change", "remove"]), st.integers(1, 3), st.sampled_from([4, 32])
)
ROUNDS = st.builds(Round, st.lists(STEPS, min_size=1, max_size=6), st.booleans(), st.integers(0, 2), st.booleans())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(rounds=st.lists(ROUNDS, min_size=1, max_size=4))
async def test_whatever_happens_what_is_told_is_what_redis_has(
    losing: Losing, redis_url: str, rounds: list[Round]
) -> None:
    await losing.flushall()
    async with AsyncExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(evaluator, "WRITE_SECONDS", 0.02)
        rig = await stack.enter_async_context(flashing(losing, me=ME))
        others = await stack.enter_async_context(flashing(losing, me=OTHER))
        looking = stack.enter_context(synchronous.from_url(redis_url))
        session = await rig.manager.create("s")
        await rig.flash.register(session, "question 1")
        for round_ in rounds:
            losing.losses = round_.losses
            if round_.away:
                losing.gate.clear()
            async with watched(rig, session, losing, looking):
                works = [asyncio.create_task(do(rig, session, step)) for step in round_.steps]
                if round_.away:
                    await asyncio.sleep(0.03)
                losing.gate.set()
                async with asyncio.timeout(SECONDS):
                    await asyncio.gather(*works)
                    await at_rest(rig, session)
            losing.losses = 0
            assert rig.flash.look(session).answers == await rig.stored("s")
            if round_.moves:
                session = await moved(losing, rig, others)
                rig, others = others, rig


async def do(rig: Rig, session: Session, step: Step) -> None:
    """Do it, if that can be."""
    work: Coroutine[Any, Any, Any]
    match step.operation:
        case "push":
            work = rig.manager.push(session, ["price"])
        case "register":
            work = rig.flash.register(session, f"question {step.query}")
        case "change":
            work = rig.flash.change(session, step.query, max_tokens=step.value)
        case _:
            work = rig.flash.remove(session, step.query)
    try:
        await work
    except (Conflict, NotFound, Unavailable):
        return


async def at_rest(rig: Rig, session: Session) -> None:
    """Everything is read and answered, and Redis has it."""
    await settled(session)

    def answered() -> bool:
        look = rig.flash.look(session)
        versions = {look.answers[query.id].version if query.id in look.answers else 0 for query in look.queries}
        return not look.version or versions <= {look.version}

    while not answered() or rig.journal._lanes["s"].waiting or rig.journal._lanes["s"].sending:
        await asyncio.sleep(0)


@asynccontextmanager
async def watched(rig: Rig, session: Session, losing: Losing, looking: synchronous.Redis) -> AsyncIterator[None]:
    """All the while, what is told is in Redis, unless nobody can know what that has at this moment."""

    async def watch() -> None:
        while True:
            lane = rig.journal._lanes["s"]
            if lane.still.is_set() or (losing.waiting and not losing.unknown):
                # All at once: nothing else runs between the two.
                told = rig.flash.look(session).answers
                assert told.items() <= answers.unpack_all(looking.hgetall(keys.answers("s"))).items()
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(watch())
        yield
        watching.cancel()


async def moved(losing: Losing, rig: Rig, others: Rig) -> Session:
    """Another server takes the session, believing its owner dead, and tells the same of it."""
    told = rig.flash.look(rig.manager.get("s")).answers
    await losing.delete(stream_keys.owner("s"))
    others.engine.generate_gate.clear()
    await others.ownership._adopt()
    session = others.manager.get("s")
    assert others.flash.look(session).answers == told
    others.engine.generate_gate.set()
    await rig.ownership._renew()
    await until(lambda: not rig.manager.knows("s"))
    assert rig.flash._standing == {}
    return session
