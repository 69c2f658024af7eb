"""The connection to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

COMMAND_SECONDS = 5.0
"""How long a command may take. Redis answers in a fraction of a millisecond; past this it is away."""

_CONNECT_SECONDS = 5.0
_HEALTH_SECONDS = 15


def connect(url: str) -> Redis:
    """A client that returns bytes.

    The client's own ``socket_timeout`` stays off: it waits for a write with :func:`asyncio.wait_for`, which loses a
    cancellation that arrives together with the result (Python 3.11), so that a request whose client has left would go
    on. Commands are bounded by :func:`in_time` instead.

    Args:
        url: as redis-py takes it: ``redis://``, ``rediss://`` or ``unix://``.
    """
    return Redis.from_url(
        url,
        socket_timeout=None,
        socket_connect_timeout=_CONNECT_SECONDS,
        # An event listener is silent for long; this tells a Redis that hangs from one that has nothing to say.
        health_check_interval=_HEALTH_SECONDS,
    )


@asynccontextmanager
async def in_time(seconds: float = COMMAND_SECONDS) -> AsyncIterator[None]:
    """Bound what is done with Redis inside.

    Raises:
        redis.exceptions.TimeoutError: it took longer than ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RedisTimeout(f"Redis did not answer within {seconds:g} s") from None
