"""What a server process has of sessions, over the in-process engine and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from streams.journal import Journal
from streams.leases import Leases, Replica
from streams.log import RedisLog
from streams.manager import Limits, Manager
from streams.ownership import Ownership
from tests.engine.fast import FastEngine
from tests.streams.kit import Heard

ME = Replica("me", "http://127.0.0.1:1")


class Server:
    """Leaving it is its death, unless it is told to close.

    Attributes:
        ownership: what keeps and adopts sessions.
        told: ids of the sessions that the journal said are another server's.
    """

    def __init__(self, redis: Redis, me: Replica = ME, seconds: float = 60.0, **limits: Any) -> None:
        self.engine = FastEngine(context=4096, kv_capacity=1 << 16)
        self.told: list[str] = []
        self.journal = Journal(redis, lost=self.told.append)
        self.leases = Leases(redis, me, seconds * 0.75)
        self.log = RedisLog(self.journal, self.leases)
        self.manager = Manager(self.engine, Limits(**limits), self.log)
        self.heard = Heard()
        self.manager.listen(self.heard)
        self.ownership = Ownership(redis, self.log, self.manager, self.leases, seconds, lambda _: b"")


@asynccontextmanager
async def serving(redis: Redis, me: Replica = ME, seconds: float = 60.0, **limits: Any) -> AsyncIterator[Server]:
    server = Server(redis, me, seconds, **limits)
    async with server.journal, server.manager, server.ownership:
        yield server
