"""Registered queries in Redis, so that they outlive the process and any process can read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgpack
from redis.asyncio import Redis

from flashquery import keys
from flashquery.conditions import Condition
from flashquery.notify import Webhook
from flashquery.queries import FlashQuery
from streams.journal import Command
from streams.store import in_time

_LAST = "last"


def pack(query: FlashQuery) -> bytes:
    """A query as msgpack, without the tokens of its choices."""
    fields = {
        "text": query.text,
        "tokens": query.tokens,
        "max_tokens": query.max_tokens,
        "choices": query.choices,
        "schema": query.schema,
        "notify": None if query.notify is None else [query.notify.url, query.notify.key],
        "fast_answer": query.fast_answer or None,
        "gap_threshold": query.gap_threshold,
        "with_stats": query.with_stats,
        "every": query.every,
        "min_interval": query.min_interval,
        "when": None if query.when is None else query.when.text,
    }
    packed: bytes = msgpack.packb({name: value for name, value in fields.items() if value is not None})
    return packed


def unpack(query_id: int, packed: bytes) -> FlashQuery:
    """The inverse of :func:`pack`: all but the tree of its choices."""
    fields: dict[str, Any] = msgpack.unpackb(packed)
    choices, notify, when = fields.get("choices"), fields.get("notify"), fields.get("when")
    return FlashQuery(
        **fields
        | {
            "id": query_id,
            "tokens": tuple(fields["tokens"]),
            "choices": None if choices is None else tuple(choices),
            "notify": None if notify is None else Webhook(*notify),
            "fast_answer": tuple(fields.get("fast_answer", ())),
            "when": None if when is None else Condition.parse(when),
        }
    )


def save(session_id: str, query: FlashQuery) -> list[Command]:
    """The commands that store a query."""
    key = keys.queries(session_id)
    return [("HSET", key, query.id, pack(query))]


def number(session_id: str, last: int) -> list[Command]:
    """The commands that store the highest number that a query of the session ever had."""
    return [("HSET", keys.queries(session_id), _LAST, last)]


def drop(session_id: str, query_id: int) -> list[Command]:
    """The commands that forget a query."""
    return [("HDEL", keys.queries(session_id), query_id)]


def clear(session_id: str) -> list[Command]:
    """The commands that forget a session's queries."""
    return [("DEL", keys.queries(session_id))]


async def read(redis: Redis, session_id: str) -> tuple[list[FlashQuery], int]:
    """A session's queries in order of registration, and the highest number that one ever had.

    Raises:
        RedisError: Redis does not answer.
    """
    async with in_time():
        found = cast(dict[bytes, bytes], await redis.hgetall(keys.queries(session_id)))
    return unpack_all(found)


def unpack_all(found: Mapping[bytes, bytes]) -> tuple[list[FlashQuery], int]:
    """The same, of what Redis has."""
    last = int(found.get(_LAST.encode(), 0))
    ids = sorted(int(field) for field in found if field != _LAST.encode())
    return [unpack(query_id, found[b"%d" % query_id]) for query_id in ids], last
