"""Answers, and how Redis keeps them: in a hash per session, readable by any process that reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import cast

import msgpack
from redis.asyncio import Redis

from flashquery import keys
from streams.engine.base import FinishReason
from streams.journal import Command
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


def save(session_id: str, query_id: int, answer: Answer) -> list[Command]:
    """The commands that store an answer."""
    key = keys.answers(session_id)
    return [("HSET", key, query_id, answer.pack()), ("EXPIRE", key, keys.ANSWERS_SECONDS)]


def drop(session_id: str, query_id: int) -> list[Command]:
    """The commands that forget an answer."""
    return [("HDEL", keys.answers(session_id), query_id)]


def clear(session_id: str) -> list[Command]:
    """The commands that forget a session's answers."""
    return [("DEL", keys.answers(session_id))]


async def read(redis: Redis, session_id: str) -> dict[int, Answer]:
    """A session's answers, by query id.

    Raises:
        RedisError: Redis does not answer.
    """
    async with in_time():
        found = cast(dict[bytes, bytes], await redis.hgetall(keys.answers(session_id)))
    return unpack_all(found)


def unpack_all(found: Mapping[bytes, bytes]) -> dict[int, Answer]:
    """The same, of what Redis has."""
    return {int(query_id): Answer.unpack(packed) for query_id, packed in found.items()}
