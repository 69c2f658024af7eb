"""The model reads what was pushed: one task per session takes batches and makes them resident."""

from __future__ import annotations

import asyncio
import logging
import time

from streams.chat import Chat
from streams.errors import AskaheadError
from streams.listening import Listener
from streams.log import Log
from streams.records import Settled
from streams.session import Session
from streams.sliding import Sliding

logger = logging.getLogger(__name__)


class Reading:
    """Owns the sessions' ingest loops.

    Args:
        chat: gives back what warm turns have read.
        sliding: moves the windows.
        log: where what is settled is written first.
        listener: told of what is resident.
    """

    def __init__(self, chat: Chat, sliding: Sliding, log: Log, listener: Listener) -> None:
        self._chat = chat
        self._sliding = sliding
        self._log = log
        self._listener = listener
        self._loops: dict[Session, asyncio.Task[None]] = {}

    def start(self, session: Session) -> None:
        """Read what is pushed from now on."""
        self._loops[session] = asyncio.create_task(self._run(session), name=f"ingest-{session.id}")

    async def stop(self, *sessions: Session) -> None:
        """Read nothing more."""
        tasks = [self._loops.pop(session) for session in sessions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*map(self._sliding.stop, sessions))

    async def _run(self, session: Session) -> None:
        try:
            while session.failure is None:
                await session.work(self._sliding.expires_in(session))
                self._sliding.tend(session)
                if session.turning:
                    continue  # its end wakes this loop
                async with self._log.changing(session):
                    await self._read(session)
                self._sliding.tend(session)
        except AskaheadError as error:
            session.failure = error.message
            logger.error("session %s stopped reading: %s", session.id, error.message)
        except Exception:
            session.failure = "internal error; the server's log has the details"
            logger.exception("session %s stopped reading", session.id)
        finally:
            session.advance()

    async def _read(self, session: Session) -> None:
        """Take a batch, if there is one, and bring the KV cache up to the end of the timeline, a slice at a time."""
        session.take()
        await self._chat.retire(session)
        goal = session.timeline.tokens
        if not await session.held.read(goal, computed=session.computed, stop=lambda: session.turning):
            session.set_aside()
        settled = session.unsettled()
        if settled is not None:
            # What is written will be so, whoever stops this loop meanwhile.
            await self._log.write(session, settled, lambda: self._settle(session, settled))

    def _settle(self, session: Session, settled: Settled) -> None:
        batch = session.settle(settled)
        seconds = max(0.0, time.time() - batch.entries[0].at)
        self._listener.settled(session, len(batch), seconds)
        if len(session.queue):
            session.wake()
