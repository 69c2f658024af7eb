"""The way out to Redis: ordered, coalesced, retried.

Whoever has something to write puts it here and goes on. One task sends everything that is waiting as one pipeline, so
a batch with twenty answers costs one round trip. A newer write with the same key replaces an older one that has not
left yet, or the oldest of a few: the outbox is bounded by the number of keys, and what matters, the latest state, is
never lost while Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from itertools import chain

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from streams.store import execute, in_time

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
        self._waiting: dict[Key, list[Write]] = {}
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

    def put(self, session_id: str, what: Hashable, write: Write, keep: int = 1, *, behind: bool = False) -> None:
        """Queue a write. The newest ``keep`` of the same session and ``what`` that are unsent stay, in their place.

        Args:
            session_id: whose it is.
            what: what it writes.
            write: adds the commands.
            keep: see above.
            behind: they go behind everything that was put before instead.
        """
        key = (session_id, what)
        writes = self._waiting.pop(key, []) if behind else self._waiting.get(key, [])
        self._waiting[key] = [*writes, write][-keep:]
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
            sending = {key: tuple(writes) for key, writes in self._waiting.items()}
            try:
                await self._send(sending)
            except (RedisError, OSError, TimeoutError) as error:
                if not self.failing:
                    log.error("Redis is away, %d writes wait for it: %s", sum(map(len, sending.values())), error)
                self.failing = True
                self._ready.set()
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self.failing:
                log.info("Redis is back, %d waiting writes were sent", sum(map(len, sending.values())))
            self.failing = False
            for key, sent in sending.items():
                left = [write for write in self._waiting.get(key, ()) if not any(write is one for one in sent)]
                if left:
                    self._waiting[key] = left
                else:
                    self._waiting.pop(key, None)
            if not self._waiting:
                self._empty.set()

    async def _send(self, writes: dict[Key, tuple[Write, ...]]) -> None:
        if not writes:
            return
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            for write in chain.from_iterable(writes.values()):
                write(pipe)
            results = await execute(pipe)
        # Sending again what Redis refuses would repeat everything that went well with it.
        refused = [result for result in results if isinstance(result, RedisError)]
        if refused:
            log.error(
                "Redis refused %d of %d commands, their answers are lost: %s", len(refused), len(results), refused[0]
            )
