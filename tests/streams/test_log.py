"""The end of a session's log, over a connection that loses replies."""

from __future__ import annotations

import pytest

from streams import keys
from streams.errors import Unavailable
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


async def test_a_deletion_of_a_session_that_is_another_servers_by_now_is_refused(losing: Losing) -> None:
    async with serving(losing) as server:
        session = await server.manager.create("s")
        server.log.forget("s")
        with pytest.raises(Unavailable) as refused:
            await server.log.end(session)
        assert refused.value.code == "session_moved"
        assert await server.leases.exists("s")
