"""Creating a session beside the adoption of one of that name: there is one in the end, and it works."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from streams import keys
from streams.errors import Conflict
from streams.leases import Replica
from tests.losing import Losing
from tests.streams.kit import SECONDS, settled, until
from tests.streams.server import Server, serving

OTHER = Replica("other", "http://127.0.0.1:2")


async def works(server: Server, version: int) -> None:
    """The session is there, and what happens to it is written."""
    assert server.manager.knows("s")
    session = server.manager.get("s")
    await server.manager.push(session, ["more"])
    await settled(session)
    assert session.version == version
    assert await server.journal.flush(SECONDS)
    assert server.told == server.heard.losses == []


@pytest.mark.parametrize("first", ["creation", "adoption"])
async def test_a_session_that_is_created_while_it_is_adopted_is_the_adopted_one(
    redis: Redis, losing: Losing, first: str
) -> None:
    async with serving(redis) as dead:
        await dead.manager.push(await dead.manager.create("s"), ["data"])
        await settled(dead.manager.get("s"))
    async with serving(losing, OTHER) as server:
        await redis.delete(keys.owner("s"))
        losing.held["HGETALL"] = reading = asyncio.Event()
        adopting = asyncio.create_task(server.ownership._adopt())
        await until(lambda: losing.waiting == 1)
        losing.held["EVAL"] = refusing = asyncio.Event()
        creating = asyncio.create_task(server.manager.create("s"))
        await until(lambda: losing.waiting == 2)
        steps = [(reading, adopting), (refusing, creating)]
        for gate, task in steps if first == "adoption" else reversed(steps):
            gate.set()
            await asyncio.wait([task])
        with pytest.raises(Conflict) as refused:
            await creating
        assert refused.value.code == "session_exists"
        await adopting
        assert (server.heard.adoptions, server.heard.creations) == (["s"], [])
        await works(server, version=2)


async def test_a_session_that_was_created_when_its_adoption_had_begun_is_the_created_one(losing: Losing) -> None:
    async with serving(losing) as server:
        # Its maker writes the name down first.
        await losing.sadd(keys.SESSIONS, "s")
        losing.gate.clear()
        adopting = asyncio.create_task(server.ownership._adopt())
        await until(lambda: losing.waiting)
        await server.manager.create("s")
        losing.gate.set()
        await adopting
        assert (server.heard.adoptions, server.heard.creations) == ([], ["s"])
        with pytest.raises(Conflict) as refused:
            await server.manager.create("s")
        assert refused.value.code == "session_exists"
        await works(server, version=1)
    async with serving(losing) as server:
        await works(server, version=2)
