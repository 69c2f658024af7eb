"""Owns the engine's life: loads it beside the event loop, loads another when it dies, tells its state, closes it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from streams.engine.base import Engine
from streams.engine.surviving import SurvivingEngine
from streams.errors import EngineUnavailable, ModelError
from streams.waiting import uninterrupted

log = logging.getLogger(__name__)

State = Literal["loading", "ready", "restarting", "failed"]

_LOADING_RETRY = 5.0
_ABORT_TIMEOUT = 10.0
_ABORT_INTERVAL = 0.2
_CLOSE_TIMEOUT = 30.0
# Seconds before an engine that died is replaced; doubled each time that does not help.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# An engine that lived for so many seconds did help.
_LONG_LIFE = 120.0


class Supervisor:
    """Loads the engine and, whenever it dies, another one, for ever.

    Args:
        load: builds an engine. It blocks, and runs in a thread of its own.
        abort: makes a running ``load`` fail soon. Called from the event loop, repeatedly, when the supervisor is
            closed while loading.
    """

    def __init__(self, load: Callable[[], Engine], *, abort: Callable[[], None] | None = None) -> None:
        self._load = load
        self._abort = abort
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._loading = False
        # What is alive, or is to be closed; and what the rest of the server sees of it.
        self._engine: Engine | None = None
        self._surviving: SurvivingEngine | None = None
        self._failure: str | None = None
        self._closing = False

    @property
    def state(self) -> State:
        """``loading`` also before :meth:`start`; ``restarting`` also after :meth:`close`."""
        if self._failure is not None:
            return "failed"
        if self._surviving is None:
            return "loading"
        return "restarting" if self._surviving.dead else "ready"

    @property
    def failure(self) -> str | None:
        """Why the first load failed, in a sentence."""
        return self._failure

    @property
    def engine(self) -> Engine:
        """The engine, which survives the death of those behind it.

        Raises:
            EngineUnavailable: it is loading, or failed to load.
        """
        if self._failure is not None:
            raise EngineUnavailable(f"The model could not be loaded: {self._failure}")
        if self._surviving is None:
            raise EngineUnavailable("The model is still loading; retry soon.", retry_after=_LOADING_RETRY)
        return self._surviving

    def start(self) -> None:
        """Begin to load. Call once, on the event loop."""
        if self._task is not None:
            raise RuntimeError("The supervisor was started before.")
        self._loading = True
        self._task = asyncio.create_task(self._run(), name="engine-life")

    async def wait_ready(self) -> Engine:
        """Wait for the first load to end.

        Raises:
            EngineUnavailable: it failed.
        """
        await self._loaded.wait()
        return self.engine

    async def close(self) -> None:
        """End a running load, and close the engine. Idempotent."""
        self._closing = True
        if self._task is not None:
            await self._end_load(self._task)
            self._task.cancel()  # the thread of a load is a daemon: it does not keep the process
            await asyncio.wait([self._task])
        if self._engine is not None:
            await self._engine.close()

    async def _end_load(self, task: asyncio.Task[None]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_TIMEOUT):
                while self._loading and not task.done():
                    if self._abort is not None:
                        self._abort()
                    await asyncio.wait([task], timeout=_ABORT_INTERVAL)

    async def _run(self) -> None:
        try:
            engine = await self._load_one()
            self._surviving = SurvivingEngine(engine)
        except asyncio.CancelledError:
            self._failure = "The server was shut down while the model was loading."
            raise
        except Exception as exc:
            self._failure = str(exc) or type(exc).__name__
            log.log(logging.DEBUG if self._closing else logging.ERROR, "The model cannot be loaded: %s", self._failure)
            log.debug("How loading failed", exc_info=exc)
            return
        finally:
            self._loaded.set()
        await self._replace_for_ever(self._surviving)

    async def _replace_for_ever(self, surviving: SurvivingEngine) -> None:
        clock, pause = asyncio.get_running_loop().time, _FIRST_PAUSE
        while True:
            began = clock()
            await surviving.lost()
            if clock() - began > _LONG_LIFE:
                pause = _FIRST_PAUSE
            while surviving.dead:
                if self._closing:
                    return
                log.error("the engine has died; another is loaded in %g s", pause)
                await self._end()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                try:
                    engine = await self._load_one()
                    if engine.dead:
                        raise ModelError("it died at once")
                    if not surviving.replaces(engine):
                        raise ModelError(f"it is not like the one before: {engine.facts}")
                except Exception as exc:
                    reason = str(exc) or type(exc).__name__
                    log.log(logging.DEBUG if self._closing else logging.ERROR, "no other engine yet: %s", reason)
                    log.debug("How loading failed", exc_info=exc)
                else:
                    surviving.replace(engine)
                    log.info("the engine is back")

    async def _load_one(self) -> Engine:
        self._loading = True
        try:
            self._engine = await _in_thread(self._load)
            return self._engine
        finally:
            self._loading = False

    async def _end(self) -> None:
        """Close what is dead. A death may have left anything behind, and nothing of it may be in the way."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        try:
            await uninterrupted(_closed(engine))
        except Exception:
            log.exception("the dead engine cannot be closed")


async def _closed(engine: Engine) -> None:
    async with asyncio.timeout(_CLOSE_TIMEOUT):
        await engine.close()


async def _in_thread(load: Callable[[], Engine]) -> Engine:
    """Run in a daemon thread, which, other than those of the loop's executor, is not waited for at exit."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Engine] = loop.create_future()

    def settle(engine: Engine | None, error: BaseException | None) -> None:
        if result.done():
            return
        if engine is not None:
            result.set_result(engine)
        else:
            result.set_exception(error or RuntimeError("The loader returned no engine."))

    def work() -> None:
        engine, error = None, None
        try:
            engine = load()
        except BaseException as exc:  # handed to the waiting task, whatever it is
            error = exc
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, engine, error)

    threading.Thread(target=work, name="engine-load", daemon=True).start()
    return await result
