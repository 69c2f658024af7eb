"""Flash Queries over the in-process engine and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from flashquery.evaluator import FlashQueries
from flashquery.events import Event, Subscription
from flashquery.waves import Evaluated
from streams.engine.base import Priority
from streams.manager import Limits, Manager
from streams.session import Session
from tests.engine.fast import FastEngine
from tests.streams.kit import SECONDS, settled


class Rig:
    """A manager and its Flash Queries.

    Attributes:
        evaluations: every finished evaluation, in order.
    """

    def __init__(self, engine: FastEngine, manager: Manager, flash: FlashQueries, done: list[Evaluated]) -> None:
        self.engine = engine
        self.manager = manager
        self.flash = flash
        self.evaluations = done

    async def push(self, session: Session, *texts: str) -> int:
        """Push one batch and wait until it is resident; its version."""
        await self.manager.push(session, texts)
        await settled(session)
        return session.version

    def asked(self) -> list[int]:
        """Lengths of the prompts of all evaluations so far."""
        return [call.tokens for call in self.engine.calls if call.priority == Priority.FLASH]


@asynccontextmanager
async def flashing(redis: Redis, engine: FastEngine | None = None, **options: Any) -> AsyncIterator[Rig]:
    engine = engine or FastEngine()
    done: list[Evaluated] = []
    async with (
        Manager(engine, Limits()) as manager,
        FlashQueries(manager, redis, evaluated=done.append, **options) as flash,
    ):
        yield Rig(engine, manager, flash, done)


async def ready(subscription: Subscription) -> dict[str, Any]:
    """The next answer that is announced."""
    while True:
        event = await subscription.next(SECONDS)
        assert isinstance(event, Event), "no answer came"
        if event.kind == "flash_ready":
            return event.data


async def arrived(rig: Rig) -> None:
    """Wait until Redis has everything."""
    assert await rig.flash.outbox.flush(SECONDS)
