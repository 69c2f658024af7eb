"""The way out to Redis: ordered, coalesced, retried.

Whoever has something to write puts it here and goes on. One task sends everything that is waiting as one pipeline, so
a batch with twenty answers costs one round trip. A newer write with the same key replaces an older one that has not
left yet: the outbox is bounded by the number of keys, and what matters, the latest state, is never lost while Redis is
away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from flashquery.store import in_time

log = logging.getLogger(__name__)

Write = Callable[[Pipeline], None]
Key = tuple[str, Hashable]

_RETRY_SECONDS = 0.5


class Outbox:
    """Use as an async context manager: it owns the sending task.

    Args:
        redis: where to.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[Key, Write] = {}
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._task: asyncio.Task[None] | None = None
        self.failing = False

    async def __aenter__(self) -> Outbox:
        self._task = asyncio.create_task(self._run(), name="outbox")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.flush(1.0)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def put(self, session_id: str, what: Hashable, write: Write) -> None:
        """Queue a write. An unsent one of the same session and ``what`` is replaced, keeping its place."""
        self._waiting[session_id, what] = write
        self._empty.clear()
        self._ready.set()

    def discard(self, session_id: str) -> None:
        """Forget every unsent write of a session."""
        for key in [key for key in self._waiting if key[0] == session_id]:
            del self._waiting[key]

    async def flush(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until everything is sent; whether it was."""
        try:
            async with asyncio.timeout(timeout):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True

    async def _run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            sending = dict(self._waiting)
            try:
                await self._send(sending)
            except (RedisError, OSError, TimeoutError) as error:
                if not self.failing:
                    log.error("Redis is away, %d writes wait for it: %s", len(sending), error)
                self.failing = True
                self._ready.set()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self.failing:
                log.info("Redis is back, %d waiting writes were sent", len(sending))
            self.failing = False
            for key, write in sending.items():
                if self._waiting.get(key) is write:
                    del self._waiting[key]
            if not self._waiting:
                self._empty.set()

    async def _send(self, writes: dict[Key, Write]) -> None:
        if not writes:
            return
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            for write in writes.values():
                write(pipe)
            results = await pipe.execute(raise_on_error=False)
        # Sending again what Redis refuses would repeat everything that went well with it.
        refused = [result for result in results if isinstance(result, RedisError)]
        if refused:
            log.error(
                "Redis refused %d of %d commands, their answers are lost: %s", len(refused), len(results), refused[0]
            )
