"""Whether a Redis keeps what it is given."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from streams.store import in_time

log = logging.getLogger(__name__)


async def warn_of_loss(redis: Redis) -> None:
    """Log a warning for each way in which this Redis may lose what was acknowledged."""
    try:
        found = await losses(redis)
    except RedisError:
        # Whoever needs it will say so.
        return
    for fault in found:
        log.warning("%s", fault)


async def losses(redis: Redis) -> list[str]:
    """The ways in which this Redis may lose what was acknowledged, as :func:`faults` tells them.

    Nothing is said of what it does not tell: managed services forbid CONFIG, and keep data in ways of their own.

    Raises:
        redis.exceptions.RedisError: it does not answer.
    """
    async with in_time():
        memory, persistence = await redis.info("memory"), await redis.info("persistence")
        save = await _save(redis)
    return faults(memory, persistence, save)


async def _save(redis: Redis) -> str | None:
    """When it takes snapshots, in the words of its configuration; None if it does not say."""
    try:
        found = await redis.config_get("save")
    except ResponseError:
        return None
    return found.get("save")


def faults(memory: Mapping[str, object], persistence: Mapping[str, object], save: str | None) -> list[str]:
    """What is wrong, a sentence each that says what to do.

    Args:
        memory: that section of INFO.
        persistence: that section of INFO.
        save: see :func:`_save`.
    """
    found = []
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory", 0) and policy != "noeviction":
        found.append(
            f"Redis drops keys when its memory is full (maxmemory-policy {policy}), and streams with them: set"
            " maxmemory-policy noeviction, and maxmemory high enough"
        )
    if not persistence.get("aof_enabled", 1) and save is not None:
        lost = f"what came after its last snapshot (save {save})" if save else "everything"
        found.append(f"Redis loses {lost} when it restarts: set appendonly yes")
    return found
