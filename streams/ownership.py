"""Which sessions are this server's: leases are renewed, and what nobody owns any more is adopted."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import context
from streams.errors import AskaheadError
from streams.leases import Leases, Replica
from streams.log import RedisLog
from streams.manager import Manager
from streams.recovery import Stored, read
from streams.session import Session

logger = logging.getLogger(__name__)

LEASE = 0.75
"""How long a lease lasts, as a share of the time within which a dead owner's sessions have another."""

# How often leases are renewed and it is looked for sessions that nobody owns, as shares of the same.
_RENEWAL, _SEARCH = 0.2, 0.1


class Ownership:
    """Use as an async context manager, when everybody listens to the manager: sessions come back as it is entered, and
    it owns the tasks that renew leases and look for sessions without an owner.

    Args:
        redis: client that returns bytes.
        log: of the sessions.
        manager: of the sessions.
        leases: of the sessions; they should last :data:`LEASE` of ``seconds``.
        seconds: within that time a dead owner's sessions have another.
        describe: figures of a session for servers that do not own it.
    """

    def __init__(
        self,
        redis: Redis,
        log: RedisLog,
        manager: Manager,
        leases: Leases,
        seconds: float,
        describe: Callable[[Session], bytes],
    ) -> None:
        self._redis = redis
        self._log = log
        self._manager = manager
        self._leases = leases
        self._seconds = seconds
        self._describe = describe
        # Not for this server: damaged, or another model's.
        self._left: set[str] = set()
        self._new = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Ownership:
        # What is back must be kept while the rest is still coming back.
        self._begin(self._renew, _RENEWAL, self._new, "renew-leases")
        try:
            await self._adopt()
        except BaseException:
            await self.__aexit__()
            raise
        self._begin(self._adopt, _SEARCH, asyncio.Event(), "adopt-sessions")
        return self

    def _begin(self, work: Callable[[], Awaitable[None]], share: float, now: asyncio.Event, name: str) -> None:
        self._tasks.append(asyncio.create_task(self._repeat(work, share, now), name=name))

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def announce(self) -> None:
        """There is a new session: other servers should know of it soon."""
        self._new.set()

    async def _repeat(self, work: Callable[[], Awaitable[None]], share: float, now: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(share * self._seconds):
                    await now.wait()
            now.clear()
            try:
                await work()
            except (RedisError, OSError, TimeoutError) as error:
                # The journal reports the outage.
                logger.debug("leases: %s", error)
            except Exception:
                logger.exception("leases cannot be kept")

    async def _renew(self) -> None:
        now = b"%f" % time.time()
        sessions = [session for session in self._manager.sessions() if session.id in self._log.fences]
        fences = {session.id: self._log.fences[session.id] for session in sessions}
        if not fences:
            return
        meta: Mapping[str, Mapping[str, bytes]] = {
            session.id: {"last_used": b"%f" % session.last_used, "seen": now, "view": self._describe(session)}
            for session in sessions
        }
        kept = await self._leases.renew(fences, meta)
        for session in sessions:
            watched = kept[session.id]
            if watched is None:
                with context.about(session.id):
                    logger.warning("session %s is another server's by now", session.id)
                self.lost(session.id)
            else:
                session.last_used = max(session.last_used, watched)

    def lost(self, session_id: str) -> None:
        """A session is another server's by now."""
        self._log.forget(session_id)
        self._manager.forget(session_id)

    async def _adopt(self) -> None:
        """Take what nobody owns. Raises RedisError."""
        ids = [one for one in await self._leases.all() if one not in self._left and not self._manager.knows(one)]
        # Servers that look at the same time should not all begin with the same.
        random.shuffle(ids)
        owners = await self._leases.owners(ids)
        free = [one for one, owner in zip(ids, owners, strict=True) if owner is None or owner.id == self._leases.me.id]
        started = time.monotonic()
        back = [session for session in [await self._take(session_id) for session_id in free] if session is not None]
        if back:
            self._manager.restore(sorted(back, key=lambda session: -session.last_used))
            seconds = time.monotonic() - started
            logger.info("%d sessions are back, with queries and answers, after %.2f s", len(back), seconds)

    async def _take(self, session_id: str) -> Session | None:
        claimed = await self._leases.claim(session_id)
        if claimed is None:
            await self._leases.tidy(session_id)
        if claimed is None or isinstance(claimed, Replica):
            return None
        try:
            with context.about(session_id):
                stored = await read(self._redis, session_id)
                return None if stored is None else await self._go_on(session_id, stored, claimed)
        except (ValueError, TypeError, KeyError, IndexError, AskaheadError) as error:
            with context.about(session_id):
                logger.error("session %s stays as it is in Redis: %s", session_id, error)
            self._left.add(session_id)
            self._log.forget(session_id)
            await self._leases.release({session_id: claimed})
            return None

    async def _go_on(self, session_id: str, stored: Stored, fence: int) -> Session:
        self._log.open(session_id, stored.options.type, fence, stored.number, stored.size)
        return await self._manager.adopt(session_id, stored)
