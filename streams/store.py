"""The connection to Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeout

from streams.store_url import Address, parse

COMMAND_SECONDS = 5.0
"""How long a command may take. Redis answers in a fraction of a millisecond; past this it is away."""

# Less than a command may take, so that after a node that is unreachable there is time for another.
_CONNECT_SECONDS = 2.0
_SENTINEL_SECONDS = 1.0
_HEALTH_SECONDS = 15

# What tells of the state that Redis is in, and nothing of the command: errors of clusters that could not be followed to
# where the key is now, and of servers that take no writes for now.
_NOT_NOW: Final = (
    RedisClusterException,
    ClusterDownError,
    AskError,
    TryAgainError,
    ReadOnlyError,
    OutOfMemoryError,
)
_NOT_NOW_WORDS: Final = ("MISCONF", "NOREPLICAS")

# Gets over a connection that was lost. Who waits for an answer is told soon, who must not fail tries again by itself.
_RETRIES = 3
_RETRY = ExponentialWithJitterBackoff(base=0.05, cap=0.5)

_CONNECTION: Final[dict[str, Any]] = {
    "retry": Retry(_RETRY, _RETRIES),
    "socket_timeout": None,
    "socket_connect_timeout": _CONNECT_SECONDS,
    # An event listener is silent for long; this tells a Redis that hangs from one that has nothing to say.
    "health_check_interval": _HEALTH_SECONDS,
}


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Redis]:
    """A client that returns bytes, closed in the end. It connects with the first command.

    The client's own ``socket_timeout`` stays off: it waits for a write with :func:`asyncio.wait_for`, which loses a
    cancellation that arrives together with the result (Python 3.11), so that a request whose client has left would go
    on. Commands are bounded by :func:`in_time` instead.

    A cluster's client is no subclass of ``Redis``, but has all that is used here with the following limits, which hold
    everywhere: a pipeline is sent by :func:`execute`, never as a transaction, and knows neither ``publish`` nor
    ``evalsha`` (its ``execute_command`` does); to listen is :func:`listening`.

    Args:
        url: see :mod:`streams.store_url`.

    Raises:
        ValueError: as :func:`streams.store_url.parse`.
    """
    async with AsyncExitStack() as stack:
        address = parse(url)
        match address.kind:
            case "cluster":
                client = _cluster(address)
            case "sentinel":
                client = _master(address, stack)
            case _:
                client = _server(address)
        stack.push_async_callback(client.aclose)
        yield client


def _server(address: Address) -> Redis:
    host, port = address.nodes[0] if address.nodes else ("", 0)
    return Redis(
        host=host,
        port=port,
        unix_socket_path=address.path or None,
        db=address.db,
        # The address of a managed Redis leads to another server after a failover, and connections to the old one,
        # now a replica, may stay.
        retry_on_error=[ReadOnlyError],
        **_CONNECTION,
        **address.options,
    )


def _master(address: Address, stack: AsyncExitStack) -> Redis:
    # Whoever looks for the master must get past a sentinel that is down or hangs.
    bounds = {
        "socket_timeout": _SENTINEL_SECONDS,
        "socket_connect_timeout": _SENTINEL_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    sentinel = Sentinel(list(address.nodes), sentinel_kwargs=bounds | address.sentinel_options)  # type: ignore[no-untyped-call]
    for client in sentinel.sentinels:
        stack.push_async_callback(client.aclose)
    return cast(Redis, sentinel.master_for(address.service, db=address.db, **_CONNECTION, **address.options))


def _cluster(address: Address) -> Redis:
    nodes = [ClusterNode(host, port) for host, port in address.nodes]
    return cast(Redis, RedisCluster(startup_nodes=nodes, **_CONNECTION, **address.options))


@asynccontextmanager
async def in_time(seconds: float = COMMAND_SECONDS) -> AsyncIterator[None]:
    """Bound what is done with Redis inside.

    Raises:
        redis.exceptions.TimeoutError: it took longer than ``seconds``.
        redis.exceptions.ConnectionError: Redis cannot be reached, or can do nothing of the kind now: a cluster is down
            in part, a disk or the memory is full, a master has become a replica.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise RedisTimeout(f"Redis did not answer within {seconds:g} s") from None
    except Exception as error:
        if not _is_state(error):
            raise
        raise RedisConnectionError(str(error)) from error


async def execute(pipe: Pipeline) -> list[Any]:
    """Send a pipeline, inside :func:`in_time`; the results, with an error in place of what Redis refuses to do.

    Raises:
        Exception: Redis, or a node of it, is away or takes no writes now; what :func:`in_time` makes of it is a
            ConnectionError or TimeoutError of Redis. Some of the commands may have been done; send all again.
    """
    results = await pipe.execute(raise_on_error=False)
    for result in results:
        if not isinstance(result, Exception):
            continue
        if isinstance(result, ReadOnlyError) and isinstance(pipe, Pipeline):
            # See retry_on_error above.
            await pipe.connection_pool.disconnect(inuse_connections=False)
        if isinstance(result, RedisConnectionError | RedisTimeout) or _is_state(result):
            raise result
    return results


def _is_state(error: Exception) -> bool:
    return isinstance(error, _NOT_NOW) or (isinstance(error, ResponseError) and str(error).startswith(_NOT_NOW_WORDS))


@asynccontextmanager
async def listening(redis: Redis, pattern: str) -> AsyncIterator[PubSub]:
    """Hear what is published to channels of a pattern.

    Raises:
        redis.exceptions.RedisError: Redis is away.
    """
    async with in_time():
        # A cluster's client learns of a failover from commands only, and listens at the node that this one reaches.
        await redis.exists(pattern)
    async with redis.pubsub() as pubsub:
        async with in_time():
            await pubsub.psubscribe(pattern)
        yield pubsub
