"""The manager: lifecycle of sessions and their ingest loops."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from streams.budget import Budget
from streams.chat import Chat
from streams.engine.base import Engine
from streams.errors import (
    AskaheadError,
    Conflict,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from streams.ingest import Entry, IngestQueue
from streams.pacer import Pacer, SlicePolicy
from streams.questions import Questions, check_alive
from streams.residency import Resident
from streams.session import PushAck, Session, gone
from streams.template import Template
from streams.timeline import Timeline

log = logging.getLogger(__name__)

# Encoding this much text takes about as long as the event loop may be held up: a millisecond or two.
_ENCODE_INLINE_BYTES = 16 * 1024
# How long a delete waits for foreground requests to end before it refuses.
_DELETE_SECONDS = 2.0


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


class Listener(Protocol):
    """What is above and wants to know."""

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        """A new version is resident: ``tokens`` were read, ``seconds`` after the oldest entry was accepted."""

    def turned(self, session: Session) -> None:
        """A new version: a turn was settled."""

    async def deleted(self, session: Session) -> None:
        """The session is gone."""


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
        self._pacer = Pacer(limits.slices)
        # Half the pool at most: a question needs room for its own tokens and its answer, and must always find it.
        reserve = min(facts.context, facts.kv_capacity // 2)
        self.budget = Budget(facts.kv_capacity, reserve, facts.block_size)
        # What a stream may not fill, so that it can still be asked about.
        self.question_room = min(512, facts.context // 4)
        self._template = Template(engine.tokenizer, engine.dialect)
        self.questions = Questions(
            engine, self._template, self._pacer, limits.questions, limits.questions_per_session, reserve
        )
        self.chat = Chat(
            engine,
            self._template,
            self.questions,
            self._pacer,
            reserve=reserve,
            grant=self._grant,
            turned=self._turned,
        )
        self._listeners: list[Listener] = []
        self._sessions: dict[str, Session] = {}
        self._loops: dict[str, asyncio.Task[None]] = {}
        self._endings: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Manager:
        self._sweeper = asyncio.create_task(self._expire(), name="expire-sessions")
        return self

    async def __aexit__(self, *_: object) -> None:
        # The sweeper first: it begins deletions.
        await self._stop(*([self._sweeper] if self._sweeper else []))
        await asyncio.gather(*self._endings, return_exceptions=True)
        await self._stop(*self._loops.values())
        await asyncio.gather(*map(self._release, self._sessions.values()))

    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` of every settled version and every deleted session from now on."""
        self._listeners.append(listener)

    # Lifecycle

    def create(self, session_id: str | None = None, system: str | None = None, *, pre_decode: bool = False) -> Session:
        """A new session.

        Args:
            session_id: 1 to 128 characters, validated by the caller; made here when absent.
            system: system prompt. It is prefilled at once; without one, the template's default precedes the data.
            pre_decode: see :class:`~streams.session.Session`.

        Raises:
            Conflict: the id exists, or no more sessions may live.
            InvalidInput: the template takes no system prompt.
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
        self._check_room(len(frame.head), "system")
        session = Session(
            id=session_id,
            frame=frame,
            queue=IngestQueue(self.limits.queue_entries, self.limits.queue_bytes),
            held=Resident(self.engine, self._pacer),
            system=system,
            pre_decode=pre_decode,
        )
        if system is not None:
            self._grant(session, len(frame.head))
            session.timeline = Timeline.of(frame.head, ())
            session.settled = len(session.timeline)
            session.wake()
        self._sessions[session_id] = session
        self._loops[session_id] = asyncio.create_task(self._ingest(session), name=f"ingest-{session_id}")
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
        await self._stop(self._loops.pop(session.id))
        try:
            await self._release(session)
        finally:
            # Even if the engine does not react, the session is over.
            self.budget.release(session)
            session.advance()
            for listener in self._listeners:
                await listener.deleted(session)
            # The name stays taken until nothing of the old session is left.
            del self._sessions[session.id]

    async def _release(self, session: Session) -> None:
        if session.ahead is not None:
            await self.chat.release(session.ahead)
        await session.held.release()

    def _turned(self, session: Session) -> None:
        for listener in self._listeners:
            listener.turned(session)

    @staticmethod
    async def _stop(*tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

    # Ingest

    async def push(self, session: Session, texts: Sequence[str]) -> PushAck:
        """Accept entries for reading. Returns at once; never blocks on the engine.

        Args:
            session: where to.
            texts: one or more entries, each becomes one line of the stream.

        Raises:
            NotFound: the session was deleted meanwhile.
            InvalidInput: an entry is too large.
            ContextLengthExceeded: the stream would outgrow the model's context.
            Unavailable: the KV cache has no room, or the engine is gone.
        """
        self._check_alive(session)
        limit = min(self.limits.entry_bytes, self.limits.queue_bytes)
        sizes = [len(text.encode()) for text in texts]
        if max(sizes) > limit:
            raise InvalidInput(
                f"an entry has {max(sizes)} bytes, the limit is {limit}; split it into several", param="data"
            )
        if sum(sizes) <= _ENCODE_INLINE_BYTES:
            entries = self._encode(texts, sizes)
        else:
            entries = await asyncio.to_thread(self._encode, texts, sizes)
            self._check_alive(session)
        coming = (session.committed or len(session.frame.head)) + sum(len(entry.tokens) for entry in entries)
        self._check_room(coming, "data")
        self._grant(session, coming)
        session.touch()
        dropped = session.queue.offer(entries)
        if dropped:
            self.budget.grant(session, session.committed)
        session.wake()
        return PushAck(
            pushed=len(entries),
            dropped=dropped,
            pending=session.pending,
            pending_bytes=session.pending_bytes,
            total_pushed=session.queue.total_pushed,
            total_dropped=session.queue.total_dropped,
            data_version=session.version,
        )

    def _encode(self, texts: Sequence[str], sizes: Sequence[int]) -> list[Entry]:
        encode = self.engine.tokenizer.encode
        return [Entry(tuple(encode(f"{text}\n")), size) for text, size in zip(texts, sizes, strict=True)]

    async def _ingest(self, session: Session) -> None:
        try:
            while True:
                await session.work()
                if session.turning:
                    continue  # its end wakes this loop
                async with session.reading:
                    await self._read(session)
        except AskaheadError as error:
            session.failure = error.message
            log.error("session %s stopped reading: %s", session.id, error.message)
        except Exception:
            session.failure = "internal error; the server's log has the details"
            log.exception("session %s stopped reading", session.id)
        finally:
            session.advance()

    async def _read(self, session: Session) -> None:
        """Take a batch, if there is one, and bring the KV cache up to the end of the timeline, a slice at a time."""
        session.take()
        await self.chat.retire(session)
        goal = session.timeline.tokens
        if not await session.held.read(goal, computed=session.computed, stop=lambda: session.turning):
            session.set_aside()
        batch = session.settle()
        if batch is not None:
            seconds = time.monotonic() - batch.accepted_at
            for listener in self._listeners:
                listener.settled(session, len(batch.tokens), seconds)
            if len(session.queue):
                session.wake()

    # The KV cache's budget

    def _grant(self, owner: Hashable, tokens: int) -> None:
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

    def _give_up_ahead(self, owner: Hashable) -> bool:
        given_up = False
        for session in self._sessions.values():
            ahead = session.ahead
            if ahead is None or ahead is owner or ahead.reading.locked():
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

    def _check_room(self, tokens: int, param: str) -> None:
        limit = self.engine.facts.context - self.question_room
        if tokens > limit:
            raise ContextLengthExceeded(
                f"the stream would have {tokens} tokens and at most {limit} fit (a context of "
                f"{self.engine.facts.context}, less {self.question_room} for questions); start a new session",
                param=param,
            )
