"""The working parts behind the API: there once the engine is, refused with a clear 503 until then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgpack
from aiohttp import web
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flashquery.evaluator import FlashQueries
from flashquery.eventlog import EventLog
from flashquery.events import Hub
from flashquery.history import History
from flashquery.waves import Evaluated
from service.api.sessions.described import described
from service.metrics import Metrics
from service.notify import Webhooks
from service.settings import Settings
from service.views import Other, Own, View, descriptions, other
from streams.engine.remarks import remarks
from streams.engine.supervisor import Supervisor
from streams.errors import AskaheadError, EngineUnavailable
from streams.journal import Journal
from streams.leases import Leases, Replica
from streams.log import RedisLog
from streams.manager import Limits, Manager
from streams.ownership import LEASE, Ownership
from streams.pacer import SlicePolicy
from streams.session import Session, gone

logger = logging.getLogger(__name__)

_GIVE_UP_SECONDS = 1.0


class Core:
    """Use as an async context manager: it owns the streams and Flash Queries, and the task that brings them up.

    Args:
        settings: bounds.
        supervisor: loads the engine.
        redis: where sessions and answers live.
        me: this server, among those that share the Redis.
        metrics: told what happens.
        failed: called when they cannot be brought up: the engine cannot be loaded, or Redis does not answer.

    Attributes:
        webhooks: who is told of changed answers.
        leases: of all sessions.
        journal: writes what changes of them.
        hub, events: what happens to them, live and kept.
        history: of the answers.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        redis: Redis,
        me: Replica,
        metrics: Metrics,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._redis = redis
        self.leases = Leases(redis, me, LEASE * settings.takeover_seconds)
        self.journal = Journal(redis, settings.store_buffer_bytes, self._lost)
        self.hub = Hub(redis, self.journal, settings.subscriber_backlog)
        self.events = EventLog(redis, settings.events_kept)
        self.history = History(redis, settings.flash_history)
        self._ownership: Ownership | None = None
        self._metrics = metrics
        self._failed = failed
        self.webhooks = Webhooks(metrics.counters, private=settings.notify_private, limit=settings.max_webhooks)
        self._parts: tuple[Manager, FlashQueries] | None = None
        # Sessions that were there before are there again.
        self._back = False
        self._stack = AsyncExitStack()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Core:
        self._task = asyncio.create_task(self._bring_up(), name="bring-up")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._stack.aclose()

    @property
    def up(self) -> bool:
        """Everything is there and the engine is alive."""
        return self._back and self._supervisor.state == "ready"

    @property
    def begun(self) -> bool:
        """Streams and Flash Queries are there, whether or not the engine is alive."""
        return self._parts is not None

    @property
    def manager(self) -> Manager:
        """The streams. Raises EngineUnavailable until the engine is loaded."""
        return self._both()[0]

    @property
    def flash(self) -> FlashQueries:
        """The Flash Queries. Raises as :attr:`manager`."""
        return self._both()[1]

    def _both(self) -> tuple[Manager, FlashQueries]:
        if self._parts is None:
            raise EngineUnavailable("the model is loading; GET /health turns 200 when it is ready", retry_after=5)
        return self._parts

    def has(self, session_id: str) -> bool:
        """Whether this server has the session."""
        return self._parts is not None and self._parts[0].has(session_id)

    def own(self, session_id: str) -> Own | None:
        """A session of this server; None if it has none of that id."""
        if self._parts is None:
            return None
        manager, flash = self._parts
        session = manager.find(session_id)
        return None if session is None else Own(session, flash)

    async def view(self, session_id: str) -> View:
        """A session, whoever owns it.

        Raises:
            NotFound: there is none.
            RedisError: it is not this server's, and Redis does not answer.
        """
        if (own := self.own(session_id)) is not None:
            return own
        if self.has(session_id):
            raise gone(session_id)
        return await other(self._redis, session_id)

    async def views(self, prefix: str) -> list[View]:
        """All sessions whose ids start so, whoever owns them. Raises RedisError."""
        ids = await self.leases.all()
        found: list[View] = []
        if self._parts is not None:
            manager, flash = self._parts
            found = [Own(session, flash) for session in manager.sessions() if session.id.startswith(prefix)]
            ids = {session_id for session_id in ids if not manager.has(session_id)}
        return [*found, *(Other(self._redis, one) for one in sorted(ids) if one.startswith(prefix))]

    async def elsewhere(self) -> list[dict[str, Any]]:
        """How other servers described their sessions last; see :func:`described`. Raises RedisError."""
        return await descriptions(self._redis, [one for one in await self.leases.all() if not self.has(one)])

    def close_subscriptions(self) -> None:
        """End event streams and sockets, so that a server that goes down does not wait for them."""
        self.hub.close()

    async def _bring_up(self) -> None:
        try:
            # What any server can tell is told while the engine loads.
            await self._stack.enter_async_context(self.hub)
            await self._supervisor.wait_ready()
            engine = self._supervisor.engine
            settings = self._settings
            limits = Limits(
                sessions=settings.max_sessions,
                idle_seconds=settings.session_idle_seconds,
                queue_entries=settings.queue_entries,
                queue_bytes=settings.queue_bytes,
                entry_bytes=settings.entry_bytes,
                questions=settings.max_questions,
                questions_per_session=settings.max_questions_per_session,
                slices=SlicePolicy(
                    seconds=settings.slice_seconds,
                    seconds_busy=settings.slice_seconds_busy,
                    tokens_max=settings.slice_tokens_max,
                ),
            )
            journal = self.journal
            log = RedisLog(journal, self.leases)
            # Last of all, when everything is written.
            self._stack.push_async_callback(self._give_up, log)
            await self._stack.enter_async_context(journal)
            manager = await self._stack.enter_async_context(Manager(engine, limits, log))
            await self._stack.enter_async_context(self.webhooks)
            flash = FlashQueries(
                manager,
                self._redis,
                journal,
                self.events,
                self.history,
                notifier=self.webhooks,
                max_queries=settings.max_flash_queries,
                concurrency=settings.flash_concurrency,
                evaluated=self._evaluated,
            )
            await self._stack.enter_async_context(flash)
            # Sessions are described as they come back.
            self._parts = (manager, flash)
            ownership = Ownership(self._redis, log, manager, self.leases, settings.takeover_seconds, self._describe)
            self._ownership = ownership
            manager.listen(_Measure(self._metrics, ownership.announce))
            await self._stack.enter_async_context(ownership)
        except AskaheadError as error:
            # Why a model cannot be loaded has been said.
            if self._supervisor.failure is None:
                logger.error("the server cannot start: %s", error.message)
            self._failed()
            return
        except RedisError as error:
            logger.error("the server cannot start: Redis does not answer; check --redis-url: %s", error)
            self._failed()
            return
        except Exception:
            logger.exception("the server cannot start")
            self._failed()
            return
        self._back = True
        facts = engine.facts
        for level, sentence in remarks(facts, engine.dialect):
            logger.log(level, "%s", sentence)
        logger.info("ready: %s, context %d, KV cache %d tokens", facts.name, facts.context, manager.budget.capacity)

    async def _give_up(self, log: RedisLog) -> None:
        """Leave the sessions to other servers, which need not wait for the leases to expire."""
        if log.fences and not self.journal.failing:
            with suppress(RedisError, TimeoutError):
                async with asyncio.timeout(_GIVE_UP_SECONDS):
                    await self.leases.release(log.fences)

    def _lost(self, session_id: str) -> None:
        if self._ownership is not None:
            self._ownership.lost(session_id)

    def _describe(self, session: Session) -> bytes:
        """A session for servers that do not own it."""
        packed: bytes = msgpack.packb(described(session, self.manager, self.flash.ready(session)))
        return packed

    def _evaluated(self, evaluated: Evaluated) -> None:
        self._metrics.flash_evaluation.observe(evaluated.seconds)
        self._metrics.answer_staleness_versions.observe(evaluated.behind)


class _Measure:
    """Listens to the streams for the metrics, and for other servers.

    Args:
        metrics: told what happens.
        announce: called when there is a new session.
    """

    def __init__(self, metrics: Metrics, announce: Callable[[], None]) -> None:
        self._metrics = metrics
        self._announce = announce

    def created(self, session: Session) -> None:
        self._announce()

    async def adopted(self, session: Session) -> None:
        """Nothing to measure."""

    def settled(self, session: Session, tokens: int, seconds: float) -> None:
        self._metrics.counters.session_ingested_tokens += tokens
        self._metrics.ingest.observe(seconds)

    def turned(self, session: Session) -> None:
        self._metrics.counters.session_turns += 1

    def moved(self, session: Session, tokens: int) -> None:
        self._metrics.counters.session_window_moves += 1
        self._metrics.counters.session_window_tokens += tokens

    def froze(self, session: Session) -> None:
        """Nothing to measure."""

    async def deleted(self, session: Session) -> None:
        """Nothing to measure."""

    async def lost(self, session: Session) -> None:
        """Nothing to measure."""


CORE = web.AppKey("core", Core)
