"""Flash Queries over the in-process engine and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from flashquery import answers
from flashquery.answers import Answer
from flashquery.evaluator import FlashQueries
from flashquery.eventlog import EventLog
from flashquery.events import Event, Hub, Subscription
from flashquery.history import History
from flashquery.waves import Evaluated
from streams import keys as stream_keys
from streams.engine.base import Priority
from streams.journal import Command, Journal
from streams.leases import Leases, Replica
from streams.log import RedisLog
from streams.manager import Limits, Manager
from streams.ownership import Ownership
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS, settled

ME = Replica("me", "http://127.0.0.1:1")


class Rig:
    """A manager and its Flash Queries.

    Attributes:
        redis: what they are stored in.
        ownership: of the sessions; nothing happens by itself.
        evaluations: every finished evaluation, in order.
    """

    def __init__(
        self,
        redis: Redis,
        engine: FastEngine,
        manager: Manager,
        ownership: Ownership,
        flash: FlashQueries,
        journal: Journal,
        hub: Hub,
        history: History,
        done: list[Evaluated],
    ) -> None:
        self.redis = redis
        self.engine = engine
        self.manager = manager
        self.ownership = ownership
        self.flash = flash
        self.journal = journal
        self.hub = hub
        self.history = history
        self.evaluations = done

    async def push(self, session: Session, *texts: str) -> int:
        """Push one batch and wait until it is resident; its version."""
        await self.manager.push(session, texts)
        await settled(session)
        return session.version

    async def stored(self, session_id: str) -> dict[int, Answer]:
        """The answers that Redis has."""
        return await answers.read(self.redis, session_id)

    def asked(self) -> list[int]:
        """Lengths of the prompts of all evaluations so far."""
        return [call.tokens for call in self.engine.calls if call.priority == Priority.FLASH]


@asynccontextmanager
async def flashing(
    redis: Redis,
    engine: FastEngine | None = None,
    *,
    me: Replica = ME,
    backlog: int = 1024,
    history: int = 1000,
    **options: Any,
) -> AsyncIterator[Rig]:
    engine = engine or FastEngine()
    done: list[Evaluated] = []
    past = History(redis, history)
    journal = Journal(redis, lost=lambda session_id: ownership.lost(session_id))
    leases = Leases(redis, me, SECONDS)
    log = RedisLog(journal, leases)
    manager = Manager(engine, Limits(), log)
    ownership = Ownership(redis, log, manager, leases, SECONDS, lambda _: b"")
    async with (
        journal,
        Hub(redis, journal, backlog) as hub,
        manager,
        FlashQueries(manager, redis, journal, EventLog(redis, 1000), past, evaluated=done.append, **options) as flash,
    ):
        yield Rig(redis, engine, manager, ownership, flash, journal, hub, past, done)


async def ready(subscription: Subscription) -> dict[str, Any]:
    """The next answer that is announced."""
    while True:
        event = await subscription.next(SECONDS)
        assert isinstance(event, Event), "no answer came"
        if event.kind == "flash_ready":
            return event.data


async def arrived(rig: Rig) -> None:
    """Wait until Redis has everything."""
    assert await rig.journal.flush(SECONDS)


async def run(redis: Redis, commands: Iterable[Command]) -> None:
    """Have commands executed that are meant for a journal."""
    async with Journal(redis) as journal:
        await redis.hdel(stream_keys.guard("none"), "batch")
        fence = await redis.hincrby(stream_keys.guard("none"), "fence", 1)
        journal.open("none", fence)
        await journal.write("none", list(commands))
