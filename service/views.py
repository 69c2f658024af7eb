"""What any server can tell of a session: from memory where it owns it, from Redis where another server does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, cast

import msgpack
from redis.asyncio import Redis

from flashquery import answers, registrations
from flashquery import keys as flash_keys
from flashquery.evaluator import FlashQueries
from flashquery.queries import Look
from streams import keys
from streams.log import Options
from streams.session import Session, gone
from streams.store import execute, in_time

# A session that is deleted in this moment must not come back as nothing but this.
_WATCHED = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'watched', ARGV[1]) end"


class View(Protocol):
    """A session that somebody watches."""

    @property
    def id(self) -> str: ...

    @property
    def labels(self) -> frozenset[str]: ...

    def pinned(self) -> AbstractContextManager[None]:
        """Keep the session from expiring while somebody watches it."""

    async def touch(self) -> None:
        """Restart the idle clock."""

    async def keep(self) -> None:
        """To be called now and then while it is :meth:`pinned`."""

    async def look(self) -> Look:
        """Its queries and answers.

        Raises:
            NotFound: it was deleted meanwhile.
            RedisError: Redis does not answer.
        """


class Own:
    """A :class:`View` of a session of this server."""

    def __init__(self, session: Session, flash: FlashQueries) -> None:
        self.session = session
        self._flash = flash

    @property
    def id(self) -> str:
        return self.session.id

    @property
    def labels(self) -> frozenset[str]:
        return self.session.labels

    def pinned(self) -> AbstractContextManager[None]:
        return self.session.pinned()

    async def touch(self) -> None:
        self.session.touch()

    async def keep(self) -> None:
        return  # the pin is enough

    async def look(self) -> Look:
        return self.present()

    def present(self) -> Look:
        """The same, which needs no waiting here."""
        return self._flash.look(self.session)


class Other:
    """A :class:`View` of another server's session.

    Args:
        redis: where it is.
        id: its id.
        labels: its labels, where somebody asks for them.
    """

    def __init__(self, redis: Redis, id: str, labels: frozenset[str] = frozenset()) -> None:
        self._redis = redis
        self._id = id
        self._labels = labels

    @property
    def id(self) -> str:
        return self._id

    @property
    def labels(self) -> frozenset[str]:
        return self._labels

    @contextmanager
    def pinned(self) -> Iterator[None]:
        yield  # its owner does not know of it; see keep

    async def keep(self) -> None:
        await self.touch()

    async def touch(self) -> None:
        async with in_time():
            await self._redis.eval(_WATCHED, 1, keys.meta(self._id), str(time.time()))

    async def look(self) -> Look:
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(flash_keys.queries(self._id))
            pipe.hgetall(flash_keys.answers(self._id))
            pipe.hmget(keys.meta(self._id), "options", "version")
            queries, answered, (options, version) = await execute(pipe)
        if options is None:
            raise gone(self._id)
        return Look(int(version or 0), registrations.unpack_all(queries)[0], answers.unpack_all(answered))


async def other(redis: Redis, session_id: str) -> Other:
    """A session that another server has, or one that nobody has at this moment.

    Raises:
        NotFound: there is none.
        RedisError: Redis does not answer.
    """
    async with in_time():
        options = cast(bytes | None, await redis.hget(keys.meta(session_id), "options"))
    if options is None:
        raise gone(session_id)
    return Other(redis, session_id, Options.unpack(options).labels)


async def descriptions(redis: Redis, session_ids: list[str]) -> list[dict[str, Any]]:
    """How their owners described these sessions last, without those that do not exist. Raises RedisError."""
    if not session_ids:
        return []
    async with in_time(), redis.pipeline(transaction=False) as pipe:
        for session_id in session_ids:
            pipe.hmget(keys.meta(session_id), "view", "version")
        found = await execute(pipe)
    shown = []
    for view, version in found:
        if view is None:
            continue
        seen = msgpack.unpackb(view)
        if version is not None:
            seen["session"]["data_version"] = int(version)
        shown.append(seen)
    return shown
