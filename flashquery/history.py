"""Past answers of queries, bounded per query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from flashquery import keys
from flashquery.answers import Answer
from streams.store import in_time

UNSENT = 64
"""How many answers of a query wait for a Redis that is away; of a longer outage the newest are kept."""


class History:
    """The answers that queries have given, one per data version: another to the same version replaces it.

    A sorted set per query, by version: what is written twice, after an outage, is there once, and reading can begin
    anywhere.

    Args:
        redis: client that returns bytes.
        limit: answers kept per query; the oldest go.
    """

    def __init__(self, redis: Redis, limit: int) -> None:
        self._redis = redis
        self._limit = limit

    async def read(self, session_id: str, query_id: int, since: int | None, limit: int) -> tuple[list[Answer], bool]:
        """The oldest answers that are newer than data version ``since``, ``limit`` at most; whether there are more."""
        after = "-inf" if since is None else f"({since}"
        async with in_time():
            found = cast(
                list[bytes],
                await self._redis.zrangebyscore(
                    keys.history(session_id, query_id), after, "+inf", start=0, num=limit + 1
                ),
            )
        return [Answer.unpack(packed) for packed in found[:limit]], len(found) > limit

    def save(self, pipe: Pipeline, session_id: str, query_id: int, answer: Answer) -> None:
        """Add the commands that append an answer."""
        key = keys.history(session_id, query_id)
        pipe.zremrangebyscore(key, answer.version, answer.version)
        pipe.zadd(key, {answer.pack(): answer.version})
        pipe.zremrangebyrank(key, 0, -self._limit - 1)
        pipe.expire(key, keys.ANSWERS_SECONDS)

    @staticmethod
    def clear(pipe: Pipeline, session_id: str, query_ids: Iterable[int]) -> None:
        """Add the commands that forget the answers of queries."""
        for query_id in query_ids:
            pipe.delete(keys.history(session_id, query_id))
