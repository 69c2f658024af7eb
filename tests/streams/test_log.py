"""The end of a session's log, over a connection that loses replies."""

from __future__ import annotations

from streams import keys
from tests.losing import Losing
from tests.streams.kit import settled
from tests.streams.server import serving


async def test_a_deletion_whose_reply_was_lost_is_done(losing: Losing) -> None:
    async with serving(losing) as server:
        session = await server.manager.create("s")
        await server.manager.push(session, ["data"])
        await settled(session)
        losing.losses = 1
        await server.manager.delete("s")
        assert losing.losses == 0
        assert await server.leases.all() == set()
        assert [key async for key in losing.scan_iter()] == [keys.guard("s").encode()]
        assert (server.told, server.heard.deletions, server.heard.losses) == ([], ["s"], [])
        # The next of that name is another.
        session = await server.manager.create("s")
        await server.manager.push(session, ["data"])
        await settled(session)
        assert (session.version, server.told) == (1, [])
