"""The model reads what was pushed: one task per session takes batches and makes them resident."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence

from streams import context, tracing
from streams.chat import Chat
from streams.engine.base import Engine
from streams.errors import AskaheadError, EngineUnavailable
from streams.holding import Holding
from streams.listening import Listener
from streams.log import Log
from streams.records import Settled
from streams.session import Session
from streams.sliding import Sliding
from streams.spans import reading

logger = logging.getLogger(__name__)

# How long to leave an engine alone that lives and could not read.
_PAUSE_SECONDS = 1.0


class Reading:
    """Owns the sessions' ingest loops.

    An engine that dies takes what it held with it. What was being read then is read anew by the next one, together with
    all that the stream had.

    Args:
        engine: holds.
        holdings: one per rank, which have room.
        chat: gives back what warm turns have read.
        sliding: moves the windows.
        log: where what is settled is written first.
        listener: told of what is resident.
    """

    def __init__(
        self,
        engine: Engine,
        holdings: Sequence[Holding],
        chat: Chat,
        sliding: Sliding,
        log: Log,
        listener: Listener,
    ) -> None:
        self._engine = engine
        self._holdings = holdings
        self._chat = chat
        self._sliding = sliding
        self._log = log
        self._listener = listener
        self._loops: dict[Session, asyncio.Task[None]] = {}
        self._cold: Sequence[deque[Session]] = ()
        self._finishing = False

    def start(self, session: Session) -> None:
        """Read what is pushed from now on."""
        self._loops[session] = asyncio.create_task(
            self._run(session), name=f"ingest-{session.id}", context=context.of(session.id)
        )

    async def finish(self, seconds: float) -> None:
        """Read nothing new. What is being read settles, as far as it is resident at the end of its slice.

        Args:
            seconds: how long that may take.
        """
        self._finishing = True
        busy = [task for session, task in self._loops.items() if session.backlog.unsettled()]
        if busy:
            await asyncio.wait(busy, timeout=seconds)

    async def stop(self, *sessions: Session) -> None:
        """Read nothing more."""
        tasks = [self._loops.pop(session) for session in sessions]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*map(self._sliding.stop, sessions))

    async def survive(self) -> None:
        """Whenever the engine has died and another is there, have it read what there is, newest used first."""
        async with asyncio.TaskGroup() as restores:
            while True:
                # It may die again while streams are being read.
                await self._engine.lost()
                for holding in self._holdings:
                    holding.forget()
                await self._engine.ready()
                restores.create_task(self.restore(sorted(self._loops, key=lambda session: -session.last_used)))

    async def restore(self, sessions: Iterable[Session]) -> None:
        """Read streams that are not resident, on each rank one after another in this order, as long as nobody has to
        make room.
        """
        self._cold = [deque[Session]() for _ in self._holdings]
        for session in sessions:
            self._cold[session.rank].append(session)
        async with asyncio.TaskGroup() as ranks:
            for cold in self._cold:
                ranks.create_task(self._restore(cold))

    async def _restore(self, cold: deque[Session]) -> None:
        while cold:
            session = cold[0]
            if session in self._loops and session.failure is None and not session.turning:
                with context.about(session.id):
                    await self._read_again(session)
            cold.popleft()

    async def _read_again(self, session: Session) -> None:
        try:
            async with self._log.changing(session):
                await self._read(session, before=0.0)
        except AskaheadError as error:
            # Those behind it have to come back all the same.
            logger.warning("session %s is not read again yet: %s", session.id, error.message)

    @property
    def restoring(self) -> int:
        """Streams that are still to be looked at by :meth:`restore`."""
        return sum(map(len, self._cold))

    async def _run(self, session: Session) -> None:
        try:
            while session.failure is None and not self._finishing:
                await session.work(self._sliding.expires_in(session))
                await self._engine.ready()
                self._sliding.tend(session)
                if session.turning:
                    continue  # its end wakes this loop
                async with self._log.changing(session):
                    # Who reads nothing new is not worth one that was used more recently.
                    wanted = session.pending or session.awaited
                    await self._read(session, before=None if wanted else session.last_used)
                self._sliding.tend(session)
        except AskaheadError as error:
            session.failure = error.message
            logger.error("session %s stopped reading: %s", session.id, error.message)
        except Exception:
            session.failure = "internal error; the server's log has the details"
            logger.exception("session %s stopped reading", session.id)
        finally:
            session.advance()

    async def _read(self, session: Session, before: float | None) -> None:
        async with self._holdings[session.rank].room(session, lambda: session.committed, before=before) as room:
            if room:
                await self._read_on(session)
        session.advance()

    async def _read_on(self, session: Session) -> None:
        """Take a batch, if there is one, and bring the KV cache up to the end of the timeline, a slice at a time."""
        batch = session.take()
        with reading(session, batch):
            await self._read_to_end(session)

    async def _read_to_end(self, session: Session) -> None:
        await self._chat.retire(session)
        goal = session.timeline.tokens

        def stop() -> bool:
            return session.turning or self._finishing

        try:
            before = len(session.held.content)
            with tracing.child("prefill", {"askahead.resident_tokens": before}) as span:
                done = await session.held.read(goal, computed=session.computed, stop=stop)
                span.set({"gen_ai.usage.input_tokens": max(0, len(session.held.content) - before)})
        except EngineUnavailable as error:
            logger.warning("session %s was not read to its end: %s", session.id, error.message)
            session.computed, done = 0, False
            if not self._engine.dead:
                await asyncio.sleep(_PAUSE_SECONDS)
            session.wake()
        if not done:
            session.set_aside()
        settled = session.backlog.unsettled()
        if settled is not None:
            # What is written will be so, whoever stops this loop meanwhile.
            await self._log.write(session, settled, lambda: self._settle(session, settled))

    def _settle(self, session: Session, settled: Settled) -> None:
        batch = session.settle(settled)
        seconds = max(0.0, time.time() - batch.entries[0].at)
        self._listener.settled(session, len(batch), seconds)
        if len(session.queue):
            session.wake()
