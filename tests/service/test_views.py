"""What a server that does not own a session may do with it."""

from __future__ import annotations

from redis.asyncio import Redis

from service.views import Other
from streams import keys
from streams.leases import Leases, Replica
from tests.streams.kit import SECONDS


async def test_watching_a_session_tells_its_owner_and_does_not_bring_a_deleted_one_back(redis: Redis) -> None:
    leases = Leases(redis, Replica("owner", "http://127.0.0.1:1"), SECONDS)
    meta = {"options": b"some"}
    fence = await leases.create("s", meta)
    view = Other(redis, "s")
    for watch in (view.touch, view.keep):
        await redis.hdel(keys.meta("s"), "watched")
        await watch()
        watched = (await leases.renew({"s": fence}, {"s": meta}))["s"]
        assert watched is not None
        assert watched > 0
    await redis.delete(keys.meta("s"))
    for watch in (view.touch, view.keep):
        await watch()
    assert not await redis.exists(keys.meta("s"))
    assert await leases.claim("s") is None
