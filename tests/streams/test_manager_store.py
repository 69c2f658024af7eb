"""What the manager promises while the store comes and goes."""

from __future__ import annotations

import asyncio

import pytest

from streams import manager as manager_module
from tests.losing import Losing
from tests.streams.kit import SECONDS, settled, until
from tests.streams.server import serving


async def test_a_push_that_is_stored_is_acknowledged_though_what_it_drops_cannot_be(
    losing: Losing, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(losing, queue_entries=2) as server:
        session = await server.manager.create("s")
        server.engine.ingest_gate.clear()
        await server.manager.push(session, ["taken"])
        await until(lambda: not len(session.queue))
        await server.manager.push(session, ["dropped", "kept"])
        # It is away from the moment on in which the push is stored.
        losing.passes = 1
        monkeypatch.setattr(manager_module, "WRITE_SECONDS", 0.5)
        ack = await server.manager.push(session, ["newest"])
        assert (ack.pushed, ack.dropped, ack.total_pushed, ack.total_dropped) == (1, 1, 4, 1)
        assert losing.waiting == 1
        losing.passes = None
        losing.gate.set()
        server.engine.ingest_gate.set()
        await settled(session)
        assert await server.journal.flush(SECONDS)
    async with serving(losing) as server:
        queue = server.manager.get("s").queue
        assert (queue.total_pushed, queue.total_dropped) == (4, 1)


async def test_a_session_whose_creator_left_when_it_was_made_is_there_as_a_whole(losing: Losing) -> None:
    async with serving(losing) as server:
        losing.held["EVAL"] = made = asyncio.Event()
        creating = asyncio.create_task(server.manager.create("s"))
        await until(lambda: losing.waiting)
        creating.cancel()
        made.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert server.heard.creations == ["s"]
        session = server.manager.get("s")
        await server.manager.push(session, ["data"])
        await settled(session)
        assert await server.journal.flush(SECONDS)
        assert session.version == 1
    async with serving(losing) as server:
        assert server.manager.get("s").version == 1


async def test_a_session_whose_creator_left_and_that_cannot_be_made_is_not_there(losing: Losing) -> None:
    async with serving(losing) as server:
        losing.held["SADD"] = listed = asyncio.Event()
        losing.refused = {"EVAL"}
        creating = asyncio.create_task(server.manager.create("s"))
        await until(lambda: losing.waiting)
        creating.cancel()
        listed.set()
        with pytest.raises(asyncio.CancelledError):
            await creating
        assert (server.heard.creations, server.manager.knows("s")) == ([], False)
        assert not await server.leases.exists("s")
        losing.refused.clear()
        session = await server.manager.create("s")
        await server.manager.push(session, ["data"])
        await settled(session)
