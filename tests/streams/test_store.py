from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeout

from streams.store import in_time


@pytest.mark.parametrize("steps", range(12))
async def test_a_cancelled_command_ends_its_task(redis: Redis, steps: int) -> None:
    """Whenever the cancellation arrives; a task that goes on would be a request nobody waits for."""
    await redis.hgetall("nothing")
    went_on = False

    async def read() -> None:
        nonlocal went_on
        await redis.hgetall("nothing")
        await asyncio.sleep(0)
        went_on = True

    task = asyncio.create_task(read())
    for _ in range(steps):
        await asyncio.sleep(0)
    cancelled = task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled() == cancelled
    assert went_on != cancelled


async def test_a_slow_redis_is_an_error_of_redis() -> None:
    with pytest.raises(RedisTimeout):
        async with in_time(0):
            await asyncio.sleep(60)
