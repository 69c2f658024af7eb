"""Queries that are registered, changed and removed at once, by callers who leave, while the store comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flashquery import evaluator, keys, registrations
from flashquery.notify import Webhook
from flashquery.queries import FlashQuery
from streams.errors import Conflict, NotFound, Unavailable
from streams.journal import Journal
from streams.session import Session
from tests.flashquery.kit import Rig, arrived, flashing
from tests.losing import Losing
from tests.streams.kit import SECONDS, until

WEBHOOK = Webhook("https://example.org/", b"k" * 24)


@dataclass
class Noting:
    """A notifier that writes down whom it would tell."""

    watched: set[tuple[str, int]] = field(default_factory=set)

    def watch(self, session_id: str, query_id: int, webhook: Webhook) -> None:
        self.watched.add((session_id, query_id))

    def answered(self, session_id: str, query_id: int, answer: Mapping[str, Any]) -> None:
        """Nobody is told."""

    def forget(self, session_id: str, query_id: int | None = None) -> None:
        self.watched = {one for one in self.watched if one[0] != session_id or query_id not in (None, one[1])}


@pytest.fixture
def noting() -> Noting:
    return Noting()


@pytest.fixture
async def rig(losing: Losing, noting: Noting) -> AsyncIterator[Rig]:
    async with flashing(losing, notifier=noting) as rig:
        yield rig


async def in_memory_as_in_redis(losing: Losing, rig: Rig, session: Session) -> list[FlashQuery]:
    """The session's queries, which are the same here and there."""
    await arrived(rig)
    stored, last = await registrations.read(losing, session.id)
    registry = rig.flash.registry(session)
    assert [replace(query, tree=None) for query in registry] == stored
    assert max((query.id for query in stored), default=0) <= last <= registry.last
    return stored


async def at_the_gate(losing: Losing, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Something whose write is on its way and does not arrive."""
    losing.gate.clear()
    task = asyncio.create_task(work)
    await until(lambda: losing.waiting)
    return task


async def test_a_query_whose_registrant_left_while_it_was_written_is_registered(
    losing: Losing, rig: Rig, noting: Noting
) -> None:
    session = await rig.manager.create("s")
    await rig.push(session, "price 1")
    await arrived(rig)
    registering = await at_the_gate(losing, rig.flash.register(session, "trend?", notify=WEBHOOK))
    registering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await registering
    assert (rig.evaluations, noting.watched) == ([], set())
    losing.gate.set()
    await until(lambda: rig.evaluations)
    (query,) = await in_memory_as_in_redis(losing, rig, session)
    assert (query.text, noting.watched) == ("trend?", {("s", query.id)})
    assert rig.flash.match(session, "trend?") is not None
    await rig.push(session, "price 2")
    await until(lambda: len(rig.evaluations) == 2)


async def test_a_query_that_is_written_when_its_session_is_over_leaves_nothing(
    losing: Losing, rig: Rig, noting: Noting
) -> None:
    session = await rig.manager.create("s")
    await rig.push(session, "price 1")
    await arrived(rig)
    registering = await at_the_gate(losing, rig.flash.register(session, "trend?", notify=WEBHOOK))
    deleting = asyncio.create_task(rig.manager.delete("s"))
    await until(lambda: session.id not in rig.flash._standing)
    losing.gate.set()
    await asyncio.gather(registering, deleting)
    assert (rig.flash._standing, noting.watched, rig.evaluations) == ({}, set(), [])
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("evaluate-")]
    assert not await losing.exists(keys.queries("s"), keys.answers("s"))
    successor = await rig.manager.create("s")
    assert await in_memory_as_in_redis(losing, rig, successor) == []


async def settle(losing: Losing, first: asyncio.Task[Any], second: Coroutine[Any, Any, Any], leaves: bool) -> Any:
    """The result of the second, which begins while the first waits, or is on its way though nobody waits any more."""
    if leaves:
        first.cancel()
        await asyncio.wait([first])
    other = asyncio.create_task(second)
    await asyncio.sleep(0)
    losing.gate.set()
    if not leaves:
        await first
    return await other


@pytest.mark.parametrize("leaves", [False, True])
async def test_two_changes_at_once_are_both_made(losing: Losing, rig: Rig, leaves: bool) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    await arrived(rig)
    first = await at_the_gate(losing, rig.flash.change(session, query.id, every=3))
    changed = await settle(losing, first, rig.flash.change(session, query.id, max_tokens=7), leaves)
    assert changed == replace(query, every=3, max_tokens=7)
    assert await in_memory_as_in_redis(losing, rig, session) == [changed]


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_query_that_is_changed_when_it_is_removed_is_removed(losing: Losing, rig: Rig, leaves: bool) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    await arrived(rig)
    first = await at_the_gate(losing, rig.flash.remove(session, query.id))
    with pytest.raises(NotFound):
        await settle(losing, first, rig.flash.change(session, query.id, every=3), leaves)
    assert await in_memory_as_in_redis(losing, rig, session) == []


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_query_that_is_removed_when_it_is_changed_is_removed(losing: Losing, rig: Rig, leaves: bool) -> None:
    session = await rig.manager.create("s")
    query = await rig.flash.register(session, "trend?")
    await arrived(rig)
    first = await at_the_gate(losing, rig.flash.change(session, query.id, every=3))
    assert await settle(losing, first, rig.flash.remove(session, query.id), leaves) == 0
    assert await in_memory_as_in_redis(losing, rig, session) == []


@dataclass(frozen=True)
class Step:
    """One thing done, and after how many turns of the loop whoever wants it leaves; None if he stays."""

    operation: str
    query: int
    value: int
    leaves: int | None


@dataclass(frozen=True)
class Round:
    """What is done at once.

    Attributes:
        away: the store is meanwhile.
        held_up: something else is on its way, so that nothing is sent.
        losses: replies that are lost.
    """

    steps: list[Step]
    away: bool
    held_up: bool
    losses: int


STEPS = st.builds(
    Step,
    st.sampled_from(["register", "change", "remove"]),
    st.integers(1, 3),
    st.integers(2, 9),
    st.none() | st.integers(0, 30),
)
ROUNDS = st.builds(Round, st.lists(STEPS, min_size=1, max_size=5), st.booleans(), st.booleans(), st.integers(0, 2))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(rounds=st.lists(ROUNDS, min_size=1, max_size=3))
async def test_whatever_was_changed_is_so_in_memory_and_in_redis(losing: Losing, rounds: list[Round]) -> None:
    await losing.flushall()
    async with flashing(losing) as rig:
        session = await rig.manager.create("s")
        for text in ("question 1", "question 2"):
            await rig.flash.register(session, text)
        removed: set[int] = set()
        with pytest.MonkeyPatch.context() as patch:
            # Those who stay are not patient either.
            patch.setattr(evaluator, "WRITE_SECONDS", 0.02)
            assert Journal.write.__kwdefaults__ is not None
            patch.setitem(Journal.write.__kwdefaults__, "timeout", 0.02)
            for round_ in rounds:
                losing.losses = round_.losses
                if round_.away:
                    losing.gate.clear()
                if round_.away and round_.held_up:
                    rig.journal.put(session.id, "anything", [("PING",)])
                    await until(lambda: losing.waiting)
                works = [asyncio.create_task(do(rig, session, step)) for step in round_.steps]
                if round_.away:
                    await asyncio.sleep(0.03)
                losing.gate.set()
                async with asyncio.timeout(SECONDS):
                    results = await asyncio.gather(*works)
                removed |= {query_id for query_id in results if query_id is not None}
                losing.losses = 0
                there = {query.id for query in await in_memory_as_in_redis(losing, rig, session)}
                assert not there & removed, "what was said to be removed is"


async def do(rig: Rig, session: Session, step: Step) -> int | None:
    """Do it, or begin to; the number of a query that was said to be removed."""
    work: Coroutine[Any, Any, Any]
    match step.operation:
        case "register":
            work = rig.flash.register(session, f"question {step.query}")
        case "change":
            work = rig.flash.change(session, step.query, every=step.value)
        case _:
            work = rig.flash.remove(session, step.query)
    task = asyncio.create_task(work)
    if step.leaves is not None:
        for _ in range(step.leaves):
            await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait([task])
    if task.cancelled() or isinstance(task.exception(), Unavailable | NotFound | Conflict):
        return None
    task.result()
    return step.query if step.operation == "remove" else None
