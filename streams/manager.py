"""The manager: lifecycle of sessions and their ingest loops."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from streams import context
from streams.backlog import Backlog
from streams.chat import Chat
from streams.engine.base import Engine
from streams.entries import EntryType
from streams.errors import (
    AskaheadError,
    Conflict,
    EngineUnavailable,
    Unavailable,
)
from streams.holding import Holding
from streams.ingest import IngestQueue
from streams.intake import Intake, Item
from streams.journal import WRITE_SECONDS
from streams.leases import exists
from streams.listening import Listener, Listeners
from streams.log import Log, Options
from streams.pacer import Pacer, SlicePolicy
from streams.pushing import Push, PushAck
from streams.questions import Questions
from streams.ranks import RankBudgets
from streams.reading import Reading
from streams.records import Froze
from streams.recovery import Stored, rebuild
from streams.residency import Resident
from streams.room import Room
from streams.session import Session, gone
from streams.sliding import Sliding
from streams.template import Template
from streams.waiting import uninterrupted
from streams.window import NO_WINDOW, Window

log = logging.getLogger(__name__)

# How long a delete waits for foreground requests to end before it refuses.
_DELETE_SECONDS = 2.0
# How long a request to freeze the prefix waits for what was pushed before it.
_FREEZE_SECONDS = 30.0
# How long a client waits for a session to be gone from the store.
_END_SECONDS = 10.0
# How long deletions and batches, each, get to end when the server goes down, and how long all of it may take.
_CLOSE_SECONDS = 1.0
_CLOSE_SECONDS_MAX = 3.0


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
        log: where what happens is written first.
    """

    def __init__(self, engine: Engine, limits: Limits, log: Log) -> None:
        facts = engine.facts
        self.engine = engine
        self.limits = limits
        self._log = log
        self._pacers = tuple(Pacer(limits.slices, facts.batch_tokens) for _ in range(facts.ranks))
        self._listeners = Listeners()
        # Half the pool at most: a question needs room for its own tokens and its answer, and must always find it.
        reserve = facts.footprint.reserve(facts.kv_capacity // facts.block_size, facts.context)
        self.budget: RankBudgets[Resident] = RankBudgets(facts, reserve)
        self._sessions: dict[str, Session] = {}
        self._holdings = tuple(
            Holding(budget, partial(self._on_rank, rank), free_while_asked=reserve >= facts.context)
            for rank, budget in enumerate(self.budget.ranks)
        )
        self.room = Room(facts.context)
        self._template = Template(engine.tokenizer, engine.dialect)
        self._intake = Intake(engine.tokenizer, min(limits.entry_bytes, limits.queue_bytes))
        self.questions = Questions(
            engine,
            self._template,
            self._pacers,
            limits.questions,
            limits.questions_per_session,
            reserve,
            rested=lambda rank: self._holdings[rank].serve(),
        )
        self.chat = Chat(
            engine,
            self._template,
            self.questions,
            self._pacers,
            reserve=reserve,
            holdings=self._holdings,
            log=log,
            turned=self._listeners.turned,
        )
        self._sliding = Sliding(engine, self._pacers, holdings=self._holdings, log=log, moved=self._listeners.moved)
        self._reading = Reading(engine, self._holdings, self.chat, self._sliding, log, self._listeners)
        # Sessions that are there, on their way, or not quite gone.
        self._known: dict[str, Session] = {}
        self._fingerprint = self._template.fingerprint(facts.name)
        self._endings: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Manager:
        self._tasks = [
            asyncio.create_task(self._expire(), name="expire-sessions"),
            asyncio.create_task(self._reading.survive(), name="survive-engine"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        closing = asyncio.create_task(self._close(), name="close-streams")
        await asyncio.wait([closing], timeout=_CLOSE_SECONDS_MAX)
        if closing.done():
            await closing
        else:
            # It is closed next, and what waits for it ends then.
            log.error("the engine does not react; it is not waited for")
            closing.cancel()

    async def _close(self) -> None:
        # These first: they begin deletions, and read.
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._endings:
            # One waits for as long as the store is away.
            await asyncio.wait(self._endings, timeout=_CLOSE_SECONDS)
            for task in self._endings:
                task.cancel()
            await asyncio.gather(*self._endings, return_exceptions=True)
        await self._reading.finish(_CLOSE_SECONDS)
        await self._reading.stop(*self._sessions.values())
        sessions = tuple(self._sessions.values())
        released = await asyncio.gather(*map(self._release, sessions), return_exceptions=True)
        for session, failure in zip(sessions, released, strict=True):
            if isinstance(failure, Exception):
                with context.about(session.id):
                    log.error("what a stream held is not released: %s", failure)
        for holding in self._holdings:
            await holding.stop()

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every new session, every settled version and every deleted session from now on."""
        self._listeners.add(listener)

    # Lifecycle

    async def create(
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
        if session_id is not None and session_id in self._known:
            raise exists(session_id)
        if len(self._known) >= self.limits.sessions:
            raise Conflict(
                f"{self.limits.sessions} sessions are live, which is this server's limit; delete one first",
                code="session_limit",
            )
        session_id = session_id or f"sess_{secrets.token_hex(8)}"
        head = len(self._template.question_frame(system).head)
        self.room.check_stream(head, "system")
        self.room.check_window(window, head)
        options = Options(time.time(), self._fingerprint, system, type, window, pre_decode, labels)
        session = self._make(session_id, options)
        if system is not None:
            self._holdings[session.rank].check(head, "system")
            session.begin()
        self._known[session_id] = session
        # A client that hangs up must not leave one that nobody has.
        await uninterrupted(self._begin(session, options))
        return session

    async def _begin(self, session: Session, options: Options) -> None:
        try:
            await self._log.begin(session.id, options)
        except BaseException:
            # One of that name may have come back meanwhile.
            if self._known.get(session.id) is session:
                del self._known[session.id]
            raise
        self._start(session)
        session.wake()
        self._listeners.created(session)

    def _make(self, session_id: str, options: Options) -> Session:
        rank = self.budget.place((other.rank, other.committed) for other in self._known.values())
        return Session(
            id=session_id,
            frame=self._template.question_frame(options.system),
            backlog=Backlog(IngestQueue(self.limits.queue_entries, self.limits.queue_bytes)),
            held=Resident(self.engine, self._pacers, rank=rank),
            system=options.system,
            type=options.type,
            window=options.window,
            pre_decode=options.pre_decode,
            labels=options.labels,
            created=options.created,
        )

    def _on_rank(self, rank: int) -> Iterator[Session]:
        return (session for session in self._sessions.values() if session.rank == rank)

    def _start(self, session: Session) -> None:
        self._sessions[session.id] = session
        self._reading.start(session)

    async def adopt(self, session_id: str, stored: Stored) -> Session:
        """Go on with a session that another server, or this one before a restart, has left. See :meth:`restore`.

        Raises:
            ValueError: its tokens are another model's, or its log is damaged.
        """
        if stored.options.model != self._fingerprint:
            raise ValueError("it was read by another model")
        if session_id in self._sessions:
            raise ValueError("it is here already")
        session = self._make(session_id, stored.options)
        try:
            await asyncio.to_thread(rebuild, session, stored)
        except (TypeError, KeyError, IndexError) as error:
            raise ValueError(f"its log is damaged: {error}") from error
        self._known[session_id] = session
        try:
            # Nobody sees it before all of it is back.
            await self._listeners.adopted(session)
        except BaseException:
            self._known.pop(session_id, None)
            raise
        self._start(session)
        if session.pending:
            session.wake()
        return session

    def has(self, session_id: str) -> bool:
        """Whether there is a session of that name, or was a moment ago."""
        return session_id in self._sessions

    def knows(self, session_id: str) -> bool:
        """Whether there is a session of that name, or will be, or was a moment ago."""
        return session_id in self._known

    def forget(self, session_id: str) -> None:
        """A session is another server's by now: nothing of it is kept here, and nothing of it is changed."""
        session = self._sessions.get(session_id)
        if session is None or session.deleted:
            return
        session.deleted = True
        ending = self._end(session, lost=True)
        self._own(asyncio.create_task(ending, name=f"forget-{session_id}", context=context.of(session_id)))

    def get(self, session_id: str) -> Session:
        """The session of that name.

        Raises:
            NotFound: there is none (any more).
        """
        session = self.find(session_id)
        if session is None:
            raise gone(session_id)
        return session

    def find(self, session_id: str) -> Session | None:
        """The same; None if there is none (any more)."""
        session = self._sessions.get(session_id)
        return None if session is None or session.deleted else session

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
        done, _ = await asyncio.wait([ending], timeout=_END_SECONDS)
        if not done:
            raise Unavailable(
                f"session '{session_id}' is over and will be deleted as soon as the store (Redis) answers",
                code="store_unavailable",
                retry_after=5,
            )
        await ending

    async def _end(self, session: Session, *, lost: bool = False) -> None:
        await self._reading.stop(session)
        try:
            await self._release(session)
        finally:
            # Even if the engine does not react, the session is over.
            self.budget.ranks[session.rank].release(session.held)
            session.advance()
            try:
                await (self._listeners.lost(session) if lost else self._listeners.deleted(session))
                if not lost:
                    await self._log.end(session)
            finally:
                # The name stays taken until nothing of the old session is left.
                del self._sessions[session.id]
                self._known.pop(session.id, None)

    async def _release(self, session: Session) -> None:
        if session.ahead is not None:
            await self.chat.release(session.ahead)
        await self._holdings[session.rank].release(session.held)

    async def _expire(self) -> None:
        pause = min(30.0, self.limits.idle_seconds / 4)
        while True:
            await asyncio.sleep(pause)
            now = time.time()
            for session in self.sessions():
                if session.idle and now - session.last_used > self.limits.idle_seconds:
                    with context.about(session.id):
                        await self._expire_one(session, now)

    async def _expire_one(self, session: Session, now: float) -> None:
        log.info("session %s expired after %.0f s unused", session.id, now - session.last_used)
        try:
            await self.delete(session.id)
        except AskaheadError as gone:
            log.info("session %s was not expired: %s", session.id, gone.message)

    def moving(self, session: Session) -> bool:
        """Whether the session's window is on its way: what stays of the stream is read anew in the background."""
        return self._sliding.moving(session)

    # Residency

    def restore(self, sessions: Iterable[Session]) -> None:
        """Read these streams in the background, in this order, as far as nobody has to make room for them."""
        self._tasks.append(asyncio.create_task(self._reading.restore(sessions), name="restore"))

    @property
    def restoring(self) -> int:
        """Streams that :meth:`restore` has not come to yet."""
        return self._reading.restoring

    def residency(self) -> dict[str, int]:
        """How many sessions there are, and where they are; for whoever measures."""
        sessions = self.sessions()
        tiers = Counter(session.residency for session in sessions)
        return {
            "sessions": len(sessions),
            "sessions_resident": tiers["resident"],
            "sessions_warm": tiers["warm"],
            "sessions_cold": tiers["cold"],
            "sessions_restoring": self.restoring,
            "session_kv_tokens": sum(len(session.held.content) for session in sessions),
        }

    # Ingest

    async def push(self, session: Session, items: Sequence[Item]) -> PushAck:
        """Accept entries for reading: hand them in, and wait until they are acknowledged; never for the engine.

        Arguments and errors as of :meth:`hand_in` and :meth:`~streams.pushing.Push.acknowledged`.
        """
        return await (await self.hand_in(session, items)).acknowledged()

    async def hand_in(self, session: Session, items: Sequence[Item]) -> Push:
        """Have entries accepted for reading, behind those that were handed in before.

        Args:
            session: where to.
            items: one or more entries, each becomes one line of the stream: text as it is, objects as the session's
                type renders them.

        Raises:
            NotFound: the session was deleted meanwhile.
            InvalidInput: an entry is too large, or not of the session's type.
            ContextLengthExceeded: the stream would outgrow the model's context, or the KV cache.
            EngineUnavailable: the stream cannot be read any more.
            Unavailable: see :class:`~streams.pushing.Push`.
        """
        self._check_reads(session)
        entries = await self._intake.entries(session.type, items)
        self._check_reads(session)
        tokens = [len(entry.tokens) for entry in entries]
        growth = session.growth(session.backlog.tokens + sum(tokens))
        if session.window.tokens is None:
            self.room.check_stream(growth, "data")
        else:
            self.room.check_entry(session.window, session.frozen_end, max(tokens))
        self._holdings[session.rank].check(growth, "data")
        session.touch()
        return Push(self._log, session, tuple(entries))

    async def freeze(self, session: Session) -> int:
        """Protect what the stream has so far from its window. Returns the end of that, in tokens.

        Raises:
            Conflict: there were turns already.
            ContextLengthExceeded: it would be more than half of the window.
            Unavailable: what is queued was not resident in time.
        """
        await session.resident(session.queue.total_pushed, _FREEZE_SECONDS)
        async with self._log.changing(session):
            session.require_live()
            self.room.check_frozen(session.window, session.data_end, "window")
            if session.freezable():

                def freeze() -> None:
                    session.freeze()
                    self._listeners.froze(session)

                await uninterrupted(self._log.write(session, Froze(), freeze, timeout=WRITE_SECONDS))
        return session.frozen_end

    def _own(self, task: asyncio.Task[None]) -> None:
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # Checks

    @staticmethod
    def _check_reads(session: Session) -> None:
        session.require_live()
        if session.failure is not None:
            raise EngineUnavailable(
                f"session '{session.id}' can read no more data: {session.failure}", code="session_failed"
            )
