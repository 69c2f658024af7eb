"""The manager: lifecycle of sessions and their ingest loops."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from streams.chat import Chat
from streams.engine.base import Engine
from streams.entries import EntryType
from streams.errors import (
    AskaheadError,
    Conflict,
    EngineUnavailable,
    Unavailable,
)
from streams.ingest import IngestQueue
from streams.intake import Intake, Item
from streams.listening import Listener, Listeners
from streams.pacer import Pacer, SlicePolicy
from streams.questions import Questions, check_alive
from streams.ranks import Owner, RankBudgets
from streams.reading import Reading
from streams.residency import Resident
from streams.room import Room
from streams.session import PushAck, Session, gone
from streams.sliding import Sliding
from streams.template import Template
from streams.timeline import Timeline
from streams.window import NO_WINDOW, Window

log = logging.getLogger(__name__)

# How long a delete waits for foreground requests to end before it refuses.
_DELETE_SECONDS = 2.0
# How long a request to freeze the prefix waits for what was pushed before it.
_FREEZE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the streams; the service's settings document each of them."""

    sessions: int = 256
    idle_seconds: float = 3600.0
    queue_entries: int = 4096
    queue_bytes: int = 8 * 2**20
    entry_bytes: int = 2**20
    questions: int = 32
    questions_per_session: int = 8
    slices: SlicePolicy = field(default_factory=SlicePolicy)


class Manager:
    """All sessions of one engine.

    Use as an async context manager: it owns one task per session and one that expires idle sessions.

    Args:
        engine: where tokens are held.
        limits: bounds.
    """

    def __init__(self, engine: Engine, limits: Limits) -> None:
        facts = engine.facts
        self.engine = engine
        self.limits = limits
        self._pacers = tuple(Pacer(limits.slices) for _ in range(facts.ranks))
        self._listeners = Listeners()
        # Half the pool at most: a question needs room for its own tokens and its answer, and must always find it.
        reserve = min(facts.context, facts.kv_capacity // 2)
        self.budget = RankBudgets(facts, reserve)
        self.room = Room(facts.context)
        self._template = Template(engine.tokenizer, engine.dialect)
        self._intake = Intake(engine.tokenizer, min(limits.entry_bytes, limits.queue_bytes))
        self.questions = Questions(
            engine, self._template, self._pacers, limits.questions, limits.questions_per_session, reserve
        )
        self.chat = Chat(
            engine,
            self._template,
            self.questions,
            self._pacers,
            reserve=reserve,
            grant=self._grant,
            turned=self._listeners.turned,
        )
        self._sliding = Sliding(engine, self._pacers, grant=self._grant, moved=self._listeners.moved)
        self._reading = Reading(self.chat, self._sliding, self._listeners)
        self._sessions: dict[str, Session] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Manager:
        self._sweeper = asyncio.create_task(self._expire(), name="expire-sessions")
        return self

    async def __aexit__(self, *_: object) -> None:
        # The sweeper first: it begins deletions.
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        await asyncio.gather(*self._endings, return_exceptions=True)
        await self._reading.stop(*self._sessions.values())
        await asyncio.gather(*map(self._release, self._sessions.values()))

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every new session, every settled version and every deleted session from now on."""
        self._listeners.add(listener)

    # Lifecycle

    def create(
        self,
        session_id: str | None = None,
        system: str | None = None,
        *,
        type: EntryType | None = None,
        window: Window = NO_WINDOW,
        pre_decode: bool = False,
        labels: frozenset[str] = frozenset(),
    ) -> Session:
        """A new session.

        Args:
            session_id: 1 to 128 characters, validated by the caller; made here when absent.
            system: system prompt. It is prefilled at once; without one, the template's default precedes the data.
            type: of its entries; None for raw text.
            window: what it is limited to.
            pre_decode, labels: see :class:`~streams.session.Session`.

        Raises:
            Conflict: the id exists, or no more sessions may live.
            InvalidInput: the template takes no system prompt, or the window is too large or too small.
            ContextLengthExceeded: the system prompt leaves no room for data.
        """
        if session_id is not None and session_id in self._sessions:
            raise Conflict(
                f"session '{session_id}' exists already; use it, delete it, or choose another id",
                code="session_exists",
                param="id",
            )
        if len(self._sessions) >= self.limits.sessions:
            raise Conflict(
                f"{self.limits.sessions} sessions are live, which is this server's limit; delete one first",
                code="session_limit",
            )
        self._check_alive()
        session_id = session_id or f"sess_{secrets.token_hex(8)}"
        frame = self._template.question_frame(system)
        self.room.check_stream(len(frame.head), "system")
        self.room.check_window(window, len(frame.head))
        session = Session(
            id=session_id,
            frame=frame,
            queue=IngestQueue(self.limits.queue_entries, self.limits.queue_bytes),
            held=Resident(self.engine, self._pacers, rank=self.budget.place(other.rank for other in self.sessions())),
            system=system,
            type=type,
            window=window,
            pre_decode=pre_decode,
            labels=labels,
        )
        if system is not None:
            self._grant(session, len(frame.head))
            session.timeline = Timeline.of(frame.head, ())
            session.settled = len(session.timeline)
            session.wake()
        self._sessions[session_id] = session
        self._reading.start(session)
        self._listeners.created(session)
        return session

    def get(self, session_id: str) -> Session:
        """The session of that name.

        Raises:
            NotFound: there is none (any more).
        """
        session = self._sessions.get(session_id)
        if session is None or session.deleted:
            raise gone(session_id)
        return session

    def sessions(self) -> list[Session]:
        """All live sessions, oldest first."""
        live = (session for session in self._sessions.values() if not session.deleted)
        return sorted(live, key=lambda session: (int(session.created * 1000), session.id))

    async def delete(self, session_id: str) -> None:
        """Delete a session and free what it holds.

        Raises:
            NotFound: there is none.
            Conflict: a foreground request still runs after two seconds.
        """
        session = self.get(session_id)
        if not await session.free(_DELETE_SECONDS):
            raise Conflict(
                f"session '{session_id}' is answering a question; try again when it has ended", code="session_busy"
            )
        self.get(session_id)
        session.deleted = True
        ending = asyncio.create_task(self._end(session), name=f"delete-{session_id}")
        self._own(ending)
        # A client that hangs up must not leave it half done.
        await asyncio.shield(ending)

    async def _end(self, session: Session) -> None:
        await self._reading.stop(session)
        try:
            await self._release(session)
        finally:
            # Even if the engine does not react, the session is over.
            self.budget.release(session)
            session.advance()
            await self._listeners.deleted(session)
            # The name stays taken until nothing of the old session is left.
            del self._sessions[session.id]

    async def _release(self, session: Session) -> None:
        if session.ahead is not None:
            await self.chat.release(session.ahead)
        await session.held.release()

    async def _expire(self) -> None:
        pause = min(30.0, self.limits.idle_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            now = time.time()
            for session in self.sessions():
                if session.idle and now - session.last_used > self.limits.idle_seconds:
                    log.info("session %s expired after %.0f s unused", session.id, now - session.last_used)
                    try:
                        await self.delete(session.id)
                    except AskaheadError as gone:
                        log.info("session %s was not expired: %s", session.id, gone.message)

    def moving(self, session: Session) -> bool:
        """Whether the session's window is on its way: what stays of the stream is read anew in the background."""
        return self._sliding.moving(session)

    # Ingest

    async def push(self, session: Session, items: Sequence[Item]) -> PushAck:
        """Accept entries for reading. Returns at once; never blocks on the engine.

        Args:
            session: where to.
            items: one or more entries, each becomes one line of the stream: text as it is, objects as the session's
                type renders them.

        Raises:
            NotFound: the session was deleted meanwhile.
            InvalidInput: an entry is too large, or not of the session's type.
            ContextLengthExceeded: the stream would outgrow the model's context.
            Unavailable: the KV cache has no room, or the engine is gone.
        """
        self._check_alive(session)
        entries = await self._intake.entries(session.type, items)
        self._check_alive(session)
        tokens = [len(entry.tokens) for entry in entries]
        if session.window.tokens is None:
            self.room.check_stream(session.growth(session.waiting_tokens + sum(tokens)), "data")
        else:
            self.room.check_entry(session.window, session.frozen_end, max(tokens))
        self._grant(session, session.growth(session.waiting_tokens + sum(tokens)))
        session.touch()
        dropped = session.queue.offer(entries)
        if dropped:
            self.budget.grant(session, session.committed)
        session.wake()
        return PushAck(
            pushed=len(entries),
            tokens=sum(tokens),
            dropped=dropped,
            pending=session.pending,
            pending_bytes=session.pending_bytes,
            total_pushed=session.queue.total_pushed,
            total_dropped=session.queue.total_dropped,
            data_version=session.version,
        )

    async def freeze(self, session: Session) -> int:
        """Protect what the stream has so far from its window. Returns the end of that, in tokens.

        Raises:
            Conflict: there were turns already.
            ContextLengthExceeded: it would be more than half of the window.
            Unavailable: what is queued was not resident in time.
        """
        await session.resident(session.queue.total_pushed, _FREEZE_SECONDS)
        async with session.reading:
            session.require_live()
            self.room.check_frozen(session.window, session.data_end, "window")
            frozen = session.freeze()
        if frozen:
            self._listeners.froze(session)
        return session.frozen_end

    # The KV cache's budget

    def _grant(self, owner: Owner, tokens: int) -> None:
        """Set what ``owner`` may hold; what warm turns have read makes room where there is none.

        Raises:
            Unavailable: there is no room.
        """
        try:
            self.budget.grant(owner, tokens)
        except Unavailable:
            if not self._give_up_ahead(owner):
                raise
            self.budget.grant(owner, tokens)

    def _give_up_ahead(self, owner: Owner) -> bool:
        given_up = False
        for session in self._sessions.values():
            ahead = session.ahead
            if ahead is None or ahead is owner or ahead.rank != owner.rank or ahead.reading.locked():
                continue
            session.ahead, given_up = None, True
            # The engine has the blocks back a moment later than the budget; until then the reserve makes up for them.
            self.budget.release(ahead)
            self._own(asyncio.create_task(self.chat.release(ahead), name=f"give-up-ahead-{session.id}"))
        return given_up

    def _own(self, task: asyncio.Task[None]) -> None:
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # Checks

    def _check_alive(self, session: Session | None = None) -> None:
        check_alive(self.engine)
        if session is None:
            return
        session.require_live()
        if session.failure is not None:
            raise EngineUnavailable(
                f"session '{session.id}' can read no more data: {session.failure}", code="session_failed"
            )
