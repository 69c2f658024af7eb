"""What is done in the background waits for a store that is away for as long as that takes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from streams import chat, journal, log, manager, reading, sliding
from streams.errors import Unavailable
from streams.session import Session
from streams.window import Window
from tests.engine.fast import FastEngine
from tests.losing import Losing
from tests.streams.chatting import conversation, say, user
from tests.streams.kit import SECONDS, Heard, settled, text_of, until
from tests.streams.server import Server, serving

_WRITE_SECONDS = 0.05
LINES = [f"{number:04d}".ljust(40, ".") for number in range(14)]


@contextmanager
def impatient() -> Iterator[None]:
    """Whoever waits for the store at most for some time does not wait for long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (chat, journal, log, manager, reading, sliding):
            patch.setattr(module, "WRITE_SECONDS", _WRITE_SECONDS, raising=False)
        assert journal.Journal.write.__kwdefaults__ is not None
        patch.setitem(journal.Journal.write.__kwdefaults__, "timeout", _WRITE_SECONDS)
        yield


@pytest.fixture
async def server(losing: Losing) -> AsyncIterator[Server]:
    async with serving(losing) as server:
        yield server


async def outlasts(losing: Losing, session: Session) -> None:
    """An outage goes on until nobody waits for its end any more who does not wait for ever."""
    await asyncio.sleep(4 * _WRITE_SECONDS)
    assert session.failure is None
    losing.gate.set()


async def test_a_batch_that_is_read_during_an_outage_settles_after_it(losing: Losing, server: Server) -> None:
    session = await server.manager.create("s")
    server.engine.ingest_gate.clear()
    await server.manager.push(session, LINES[:2])
    await until(lambda: not len(session.queue))
    with impatient():
        losing.gate.clear()
        server.engine.ingest_gate.set()
        await until(lambda: losing.waiting)
        await outlasts(losing, session)
        await settled(session)
    await server.manager.push(session, LINES[2:4])
    await settled(session)
    assert (session.version, session.failure) == (2, None)


async def unsure_turn(losing: Losing, server: Server, session: Session, turn: asyncio.Task[object]) -> None:
    """Have a turn that runs end while the store is away, so that nobody knows whether it is written."""
    losing.gate.clear()
    server.engine.generate_gate.set()
    with pytest.raises(Unavailable) as unsure:
        await turn
    assert unsure.value.code == journal.UNSURE


async def test_what_is_pushed_in_a_turn_that_an_outage_breaks_off_is_read_after_it(
    losing: Losing, server: Server
) -> None:
    session = await server.manager.create("s")
    server.engine.generate_gate.clear()
    turn = asyncio.create_task(say(server.manager, session, conversation(user("well?"))))
    await until(lambda: server.engine.running)
    await server.manager.push(session, LINES[:2])
    with impatient():
        await unsure_turn(losing, server, session, turn)
        await outlasts(losing, session)
        await settled(session)
    assert session.failure is None
    # It was written after all.
    assert session.turns == 1
    assert text_of(server.engine, session).index("well?") < text_of(server.engine, session).index(LINES[0])


class Stops(Heard):
    """An engine reads no further than to the next version."""

    def __init__(self, engine: FastEngine) -> None:
        super().__init__()
        self._engine = engine

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        self._engine.ingest_gate.clear()


async def about_to_move(server: Server) -> Session:
    """A session whose window is due to move, and an engine that does not read what stays."""
    session = await server.manager.create("s", window=Window(600))
    server.manager.listen(Stops(server.engine))
    await server.manager.push(session, LINES)
    await until(lambda: server.manager.moving(session))
    return session


async def moved(server: Server, session: Session) -> None:
    await settled(session)
    await until(lambda: session.evicted and not server.manager.moving(session))
    assert session.failure is None
    assert [line for line in LINES if line in text_of(server.engine, session)] == LINES[session.evicted :]
    assert await server.journal.flush(SECONDS)


async def test_a_window_that_moves_during_an_outage_has_moved_after_it(losing: Losing, server: Server) -> None:
    session = await about_to_move(server)
    with impatient():
        losing.gate.clear()
        server.engine.ingest_gate.set()
        await until(lambda: losing.waiting)
        await outlasts(losing, session)
        await moved(server, session)


async def test_a_window_that_moves_behind_a_turn_that_an_outage_breaks_off_has_moved_after_it(
    losing: Losing, server: Server
) -> None:
    session = await about_to_move(server)
    server.engine.generate_gate.clear()
    turn = asyncio.create_task(say(server.manager, session, conversation(user("well?"))))
    await until(lambda: session.turning)
    server.engine.ingest_gate.set()
    await until(lambda: server.engine.running)
    with impatient():
        await unsure_turn(losing, server, session, turn)
        await outlasts(losing, session)
        await moved(server, session)
