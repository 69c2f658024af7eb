"""Answers and their cache in Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgpack
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from flashquery import keys
from streams.engine.base import FinishReason
from streams.store import in_time


@dataclass(frozen=True, slots=True)
class Answer:
    """An evaluated Flash Query.

    Attributes:
        value: text of the answer.
        version: data version it was computed over.
        confidence: logit gap in nats; see :mod:`flashquery.confidence`.
        evaluated_at: Unix seconds.
        finish_reason: ``length`` if the query's ``max_tokens`` cut the text off.
        probabilities: of each choice, for queries with choices.
        mass: how much of the model's belief the choices cover, 0 to 1.
        changed: whether the text is another than that of the query's answer before.
    """

    value: str
    version: int
    confidence: float
    evaluated_at: float
    finish_reason: FinishReason = "stop"
    probabilities: dict[str, float] | None = None
    mass: float | None = None
    changed: bool = False

    def pack(self) -> bytes:
        """As msgpack, a map of the attributes that are set."""
        packed: bytes = msgpack.packb({name: value for name, value in asdict(self).items() if value is not None})
        return packed

    @classmethod
    def unpack(cls, packed: bytes | str) -> Answer:
        """The inverse of :meth:`pack`."""
        return cls(**msgpack.unpackb(packed))


class AnswerCache:
    """The answers of all sessions: one hash per session, readable by any process that reaches the Redis.

    Reads go straight to Redis. Writes are commands added to a pipeline, so that an answer and the event that announces
    it travel together.

    Args:
        redis: client that returns bytes.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def all(self, session_id: str) -> dict[int, Answer]:
        """Every cached answer of a session, by query id."""
        async with in_time():
            found = await self._redis.hgetall(keys.answers(session_id))
        return {int(query_id): Answer.unpack(packed) for query_id, packed in found.items()}

    async def get(self, session_id: str, query_id: int) -> Answer | None:
        """One cached answer."""
        async with in_time():
            packed = await self._redis.hget(keys.answers(session_id), str(query_id))
        return None if packed is None else Answer.unpack(packed)

    @staticmethod
    def save(pipe: Pipeline, session_id: str, query_id: int, answer: Answer) -> None:
        """Add the commands that store an answer."""
        key = keys.answers(session_id)
        pipe.hset(key, str(query_id), answer.pack())
        pipe.expire(key, keys.ANSWERS_SECONDS)

    @staticmethod
    def drop(pipe: Pipeline, session_id: str, query_id: int) -> None:
        """Add the commands that forget an answer."""
        pipe.hdel(keys.answers(session_id), str(query_id))

    @staticmethod
    def clear(pipe: Pipeline, session_id: str) -> None:
        """Add the commands that forget a session's answers."""
        pipe.delete(keys.answers(session_id))
