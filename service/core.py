"""The working parts behind the API: there once the engine is, refused with a clear 503 until then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack

from aiohttp import web
from redis.asyncio import Redis

from flashquery.evaluator import FlashQueries
from flashquery.waves import Evaluated
from service.metrics import Metrics
from service.notify import Webhooks
from service.settings import Settings
from streams.engine.supervisor import Supervisor
from streams.errors import AskaheadError, EngineUnavailable
from streams.manager import Limits, Manager
from streams.pacer import SlicePolicy
from streams.session import Session

log = logging.getLogger(__name__)


class Core:
    """Use as an async context manager: it owns the streams and Flash Queries, and the task that brings them up.

    Args:
        settings: bounds.
        supervisor: loads the engine.
        redis: where answers live.
        metrics: told what happens.
        failed: called when they cannot be brought up: the engine cannot be loaded, or Redis does not answer.

    Attributes:
        webhooks: who is told of changed answers.
    """

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        redis: Redis,
        metrics: Metrics,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._redis = redis
        self._metrics = metrics
        self._failed = failed
        self.webhooks = Webhooks(metrics.counters, private=settings.notify_private, limit=settings.max_webhooks)
        self._parts: tuple[Manager, FlashQueries] | None = None
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
        return self._parts is not None and self._supervisor.state == "ready"

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

    def close_subscriptions(self) -> None:
        """End event streams and sockets, so that a server that goes down does not wait for them."""
        if self._parts is not None:
            self._parts[1].hub.close()

    async def _bring_up(self) -> None:
        try:
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
            manager = await self._stack.enter_async_context(Manager(engine, limits))
            await self._stack.enter_async_context(self.webhooks)
            flash = FlashQueries(
                manager,
                self._redis,
                notifier=self.webhooks,
                max_queries=settings.max_flash_queries,
                concurrency=settings.flash_concurrency,
                backlog=settings.subscriber_backlog,
                history=settings.flash_history,
                evaluated=self._evaluated,
            )
            await self._stack.enter_async_context(flash)
            manager.listen(_Measure(self._metrics))
        except AskaheadError as error:
            log.error("the server cannot start: %s", error.message)
            self._failed()
            return
        except Exception:
            log.exception("the server cannot start")
            self._failed()
            return
        self._parts = (manager, flash)
        facts = engine.facts
        log.info("ready: %s, context %d, KV cache %d tokens", facts.name, facts.context, facts.kv_capacity)

    def _evaluated(self, evaluated: Evaluated) -> None:
        self._metrics.flash_evaluation.observe(evaluated.seconds)
        self._metrics.answer_staleness_versions.observe(evaluated.behind)


class _Measure:
    """Listens to the streams for the metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def created(self, session: Session) -> None:
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


CORE = web.AppKey("core", Core)
