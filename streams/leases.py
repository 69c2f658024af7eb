"""Who owns a session: one server at a time, by a lease that expires where it is not renewed.

With every change of owner the session's fence rises, and a write names the fence under which it is made
(:mod:`streams.journal`). So a server that was believed dead and is not can do no harm: its writes are refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from streams import keys
from streams.errors import Conflict
from streams.journal import UNSURE, away
from streams.store import execute, in_time

# A client sends what had no reply once more: whoever made a session is told so again.
# Taking a session over forgets the number of the last flush, since flushes are counted anew under each fence.
_CREATE = """
if redis.call('HEXISTS', KEYS[3], 'options') == 1 then
  if redis.call('HGET', KEYS[3], 'maker') ~= ARGV[3] then return 0 end
  return tonumber(redis.call('HGET', KEYS[1], 'fence'))
end
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HDEL', KEYS[1], 'batch')
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[3], 'maker', ARGV[3], unpack(ARGV, 4))
return fence
"""
_CLAIM = """
if redis.call('HEXISTS', KEYS[3], 'options') == 0 then return 0 end
local owner = redis.call('GET', KEYS[2])
if owner and (owner == ARGV[1] or string.sub(owner, 1, #ARGV[3]) ~= ARGV[3]) then return owner end
local fence = redis.call('HINCRBY', KEYS[1], 'fence', 1)
redis.call('HDEL', KEYS[1], 'batch')
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return fence
"""
_RENEW = """
if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[3] then return 0 end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HSET', KEYS[3], unpack(ARGV, 4))
return redis.call('HGET', KEYS[3], 'watched') or '0'
"""


_RELEASE = """
if redis.call('HGET', KEYS[1], 'fence') == ARGV[1] then redis.call('DEL', KEYS[2]) end
return 1
"""


@dataclass(frozen=True, slots=True)
class Replica:
    """A server among those that share a Redis.

    Attributes:
        id: the same after a restart, so that it has its own sessions back at once; without spaces.
        url: where the others reach it.
    """

    id: str
    url: str

    @classmethod
    def parse(cls, value: bytes) -> Replica:
        """The inverse of how an owner is written."""
        name, url, *_ = value.decode().split(" ")
        return cls(name, url)


class Leases:
    """Takes, renews and looks up.

    Args:
        redis: client that returns bytes.
        me: this server.
        seconds: how long a lease lasts that is not renewed.
    """

    def __init__(self, redis: Redis, me: Replica, seconds: float) -> None:
        self._redis = redis
        self.me = me
        self.seconds = seconds
        # What it owned before a restart it may take at once, but not what it makes at this moment.
        self._run = secrets.token_hex(4)

    async def create(self, session_id: str, meta: Mapping[str, bytes]) -> int:
        """Make a session that is this server's. Returns its fence.

        Raises:
            Conflict: there is one of that id.
            Unavailable: Redis does not answer. Where it cannot be told whether there is such a session now, the message
                says so; if there is, it has an owner when the lease has expired.
        """
        try:
            async with in_time():
                await self._redis.sadd(keys.SESSIONS, session_id)
        except (RedisError, OSError) as error:
            raise away(", so no session can be made; try again shortly") from error
        try:
            async with in_time():
                fence = await self._call(_CREATE, session_id, secrets.token_hex(8), *_pairs(meta))
                # Once more: before the session was there, somebody may have tidied its id away.
                await self._redis.sadd(keys.SESSIONS, session_id)
        except (RedisError, OSError) as error:
            raise away(
                f"; session '{session_id}' may have been made or not: look in a moment before you make it again", UNSURE
            ) from error
        if not fence:
            raise exists(session_id)
        return cast(int, fence)

    async def claim(self, session_id: str) -> int | Replica | None:
        """Take over a session that nobody owns, or that this server owned before it was restarted.

        Returns:
            Its fence, or who owns it, or None where there is no such session.

        Raises:
            RedisError: Redis does not answer.
        """
        async with in_time():
            found = await self._call(_CLAIM, session_id, f"{self.me.id} ")
        if isinstance(found, bytes):
            return Replica.parse(found)
        return cast(int, found) or None

    async def renew(
        self, fences: Mapping[str, int], meta: Mapping[str, Mapping[str, bytes]]
    ) -> dict[str, float | None]:
        """Go on owning sessions.

        Args:
            fences: of each.
            meta: figures of each, for whoever does not own it.

        Returns:
            Of each, when somebody last watched it at another server, Unix seconds; None where it is another server's by
            now.

        Raises:
            RedisError: Redis does not answer.
        """
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            for session_id, fence in fences.items():
                arguments = (fence, *_pairs(meta[session_id]))
                pipe.eval(_RENEW, 3, *self._keys(session_id), *self._owner(), *arguments)
            kept = await execute(pipe)
        for refused in kept:
            if isinstance(refused, RedisError):
                raise refused  # which says nothing of who owns what
        return {
            session_id: float(watched) if isinstance(watched, bytes) else None
            for session_id, watched in zip(fences, kept, strict=True)
        }

    async def release(self, fences: Mapping[str, int]) -> None:
        """Own sessions no more, so that another server can have them at once.

        Args:
            fences: of each; where it is not this any more, nothing happens.

        Raises:
            RedisError: Redis does not answer.
        """
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            for session_id, fence in fences.items():
                pipe.eval(_RELEASE, 3, *self._keys(session_id), fence)
            await execute(pipe)

    async def owners(self, session_ids: Sequence[str]) -> list[Replica | None]:
        """Who owns each of these sessions; None where nobody does. Raises RedisError."""
        if not session_ids:
            return []
        async with in_time(), self._redis.pipeline(transaction=False) as pipe:
            for session_id in session_ids:
                pipe.get(keys.owner(session_id))
            found = await execute(pipe)
        return [None if value is None else Replica.parse(value) for value in found]

    async def exists(self, session_id: str) -> bool:
        """Whether there is such a session, whoever owns it. Raises RedisError."""
        async with in_time():
            return bool(await self._redis.hexists(keys.meta(session_id), "options"))

    async def all(self) -> set[str]:
        """The ids of all sessions, whoever owns them. Raises RedisError."""
        async with in_time():
            members = cast(Collection[bytes], await self._redis.smembers(keys.SESSIONS))
        return {member.decode() for member in members}

    async def tidy(self, session_id: str) -> None:
        """Take the id of a session that does not exist off the list. Raises RedisError."""
        async with in_time():
            await self._redis.srem(keys.SESSIONS, session_id)
            if await self._redis.hexists(keys.meta(session_id), "options"):
                await self._redis.sadd(keys.SESSIONS, session_id)

    async def _call(self, script: str, session_id: str, *arguments: str | bytes) -> Any:
        return await self._redis.eval(script, 3, *self._keys(session_id), *self._owner(), *arguments)

    def _owner(self) -> tuple[str, int]:
        return f"{self.me.id} {self.me.url} {self._run}", int(self.seconds * 1000)

    @staticmethod
    def _keys(session_id: str) -> tuple[str, str, str]:
        return keys.guard(session_id), keys.owner(session_id), keys.meta(session_id)


def exists(session_id: str) -> Conflict:
    """The refusal of an id that is taken."""
    return Conflict(
        f"session '{session_id}' exists already; use it, delete it, or choose another id",
        code="session_exists",
        param="id",
    )


def _pairs(mapping: Mapping[str, bytes]) -> list[str | bytes]:
    return [part for pair in mapping.items() for part in pair]
