"""Windows that move: what stays is read into a hold of its own in the background, and then takes the stream's place.

Until then the old hold serves, and both take in what comes. Where the KV cache has no room for two, the stream's own
hold is read anew in place: questions are slower meanwhile, never wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streams import context
from streams.engine.base import Engine
from streams.errors import AskaheadError, EngineUnavailable
from streams.holding import Holding
from streams.log import Log
from streams.pacer import Pacer
from streams.records import Moved
from streams.residency import Resident
from streams.session import Session
from streams.timeline import Eviction

logger = logging.getLogger(__name__)

# How long to leave an engine alone that lives and could not read.
_PAUSE_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class Move:
    """A window on its way.

    Attributes:
        spare: reads what stays; what the stream was held by, once it has moved.
        task: moves it.
        ending: it has moved, or will not; what is left to do must not be interrupted.
    """

    spare: Resident
    task: asyncio.Task[None] = field(init=False)
    ending: bool = False


class Sliding:
    """Moves windows; owns one task per window that moves.

    Args:
        engine: holds.
        pacers: one per rank, which share the engine.
        holdings: one per rank, which have room.
        log: where a move is written first.
        moved: called with a session, and the tokens that were read for it, whenever its window has moved.
    """

    def __init__(
        self,
        engine: Engine,
        pacers: Sequence[Pacer],
        *,
        holdings: Sequence[Holding],
        log: Log,
        moved: Callable[[Session, int], None],
    ) -> None:
        self._engine = engine
        self._pacers = pacers
        self._holdings = holdings
        self._log = log
        self._moved = moved
        self._moves: dict[Session, Move] = {}

    def tend(self, session: Session) -> None:
        """Begin to move the session's window if that is due and not on its way."""
        if session in self._moves or session.failure is not None:
            return
        if session.window.overdue(session.timeline, session.backlog.next_tokens, time.time()):
            move = self._moves[session] = Move(Resident(self._engine, self._pacers, rank=session.rank))
            move.task = asyncio.create_task(
                self._run(session, move), name=f"window-{session.id}", context=context.of(session.id)
            )

    def moving(self, session: Session) -> bool:
        """Whether the session's window is on its way."""
        return session in self._moves

    def expires_in(self, session: Session) -> float | None:
        """Seconds until the session has to be tended again though nothing comes; None if it need not be."""
        if session in self._moves or session.failure is not None:
            return None
        expiry = session.window.expiry(session.timeline)
        return None if expiry is None else max(0.0, expiry - time.time())

    async def stop(self, session: Session) -> None:
        """Leave the session's window where it is, and give back what was read for it."""
        move = self._moves.get(session)
        if move is None:
            return
        if not move.ending:
            move.task.cancel()
        await asyncio.gather(move.task, return_exceptions=True)
        if session in self._moves:
            # It was cancelled before it began.
            await self._end(session, move)

    async def _run(self, session: Session, move: Move) -> None:
        try:
            await self._slide(session, move)
        except EngineUnavailable as error:
            # The ingest loop begins it anew when the engine is back.
            logger.warning("the window of session %s has not moved: %s", session.id, error.message)
            if not self._engine.dead:
                await asyncio.sleep(_PAUSE_SECONDS)
        except AskaheadError as error:
            self._fail(session, error.message)
        except Exception:
            logger.exception("the window of session %s cannot move", session.id)
            self._fail(session, "internal error; the server's log has the details")
        finally:
            await self._end(session, move)

    async def _end(self, session: Session, move: Move) -> None:
        move.ending = True
        try:
            await self._holdings[session.rank].release(move.spare)
        except EngineUnavailable as error:
            logger.error("what was read for the window of session %s is still held: %s", session.id, error.message)
        finally:
            del self._moves[session]
            # It may have to move again, and what waited for this has room.
            session.wake()

    def _fail(self, session: Session, reason: str) -> None:
        logger.error("session %s stopped reading: %s", session.id, reason)
        session.failure = session.failure or reason
        session.advance()

    async def _slide(self, session: Session, move: Move) -> None:
        holding = self._holdings[session.rank]
        lineage, eviction = None, Eviction()
        while True:
            if session.timeline.lineage is not lineage:
                lineage = session.timeline.lineage
                eviction = session.window.eviction(session.timeline, session.backlog.next_tokens, time.time())
                if not eviction:
                    return
            await self._read_ahead(session, move, eviction)
            async with self._log.changing(session):
                if session.timeline.lineage is not lineage:
                    continue
                goal = session.timeline.without(eviction).tokens
                async with holding.spare(session, move.spare, len(goal)) as room:
                    if room and await self._finish(session, move, eviction, move.spare):
                        return
                if not room:
                    # What it has read is in the way now.
                    await holding.release(move.spare)
                    async with holding.room(session, lambda: len(goal)) as room:  # noqa: B023 (awaited here)
                        if room and await self._finish(session, move, eviction, session.held):
                            return

    async def _finish(self, session: Session, move: Move, eviction: Eviction, held: Resident) -> bool:
        """Read the rest of it, and be there. Returns False if a turn came before that."""
        if not await held.read(session.timeline.without(eviction).tokens, stop=lambda: session.turning):
            return False

        def apply() -> None:
            # Whoever stopped this move meanwhile has released what was read for it.
            self._settle(session, move, eviction, held if session in self._moves else session.held)

        await self._log.write(session, Moved(eviction.segments, eviction.entries), apply)
        return True

    def _settle(self, session: Session, move: Move, eviction: Eviction, held: Resident) -> None:
        read = len(held.content) - held.cached
        old = session.settle_move(eviction, held)
        if held is move.spare:
            move.spare = old
        self._moved(session, read)

    async def _read_ahead(self, session: Session, move: Move, eviction: Eviction) -> None:
        """Read most of it while the stream goes on."""
        lineage, goal = session.timeline.lineage, session.timeline.without(eviction).tokens
        async with self._holdings[session.rank].spare(session, move.spare, len(goal)) as room:
            if room:
                await move.spare.read(goal, stop=lambda: session.timeline.lineage is not lineage)
