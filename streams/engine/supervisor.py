"""Owns the engine's life: loads it beside the event loop, tells its state, closes it."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from streams.engine.base import Engine
from streams.errors import EngineUnavailable

log = logging.getLogger(__name__)

State = Literal["loading", "ready", "failed", "dead"]

_LOADING_RETRY = 5.0
_DEAD_RETRY = 30.0
_ABORT_TIMEOUT = 10.0
_ABORT_INTERVAL = 0.2


class Supervisor:
    """Loads one engine and hands it out while it lives.

    Args:
        load: builds the engine. It blocks, and runs in a thread of its own.
        abort: makes a running ``load`` fail soon. Called from the event loop, repeatedly, when the supervisor is
            closed while loading.
    """

    def __init__(self, load: Callable[[], Engine], *, abort: Callable[[], None] | None = None) -> None:
        self._load = load
        self._abort = abort
        self._task: asyncio.Task[None] | None = None
        self._loaded = asyncio.Event()
        self._engine: Engine | None = None
        self._failure: str | None = None
        self._closing = False

    @property
    def state(self) -> State:
        """``loading`` also before :meth:`start`; ``dead`` also after :meth:`close`."""
        if self._failure is not None:
            return "failed"
        if self._engine is None:
            return "loading"
        return "dead" if self._engine.dead else "ready"

    @property
    def failure(self) -> str | None:
        """Why loading failed, in a sentence."""
        return self._failure

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            EngineUnavailable: it is loading, failed to load, or died.
        """
        if self._failure is not None:
            raise EngineUnavailable(f"The model could not be loaded: {self._failure}")
        if self._engine is None:
            raise EngineUnavailable("The model is still loading; retry soon.", retry_after=_LOADING_RETRY)
        if self._engine.dead:
            raise EngineUnavailable("The engine has died; retry once it is back.", retry_after=_DEAD_RETRY)
        return self._engine

    def start(self) -> None:
        """Begin to load. Call once, on the event loop."""
        if self._task is not None:
            raise RuntimeError("The supervisor was started before.")
        self._task = asyncio.create_task(self._run(), name="engine-load")

    async def wait_ready(self) -> Engine:
        """Wait for the load to end.

        Raises:
            EngineUnavailable: it failed, or the engine has died since.
        """
        await self._loaded.wait()
        return self.engine

    async def close(self) -> None:
        """End a running load, and close the engine. Idempotent."""
        self._closing = True
        if self._task is not None:
            await self._end_load(self._task)
        if self._engine is not None:
            await self._engine.close()

    async def _end_load(self, task: asyncio.Task[None]) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_TIMEOUT):
                while not task.done():
                    if self._abort is not None:
                        self._abort()
                    await asyncio.wait([task], timeout=_ABORT_INTERVAL)
        task.cancel()  # its thread is a daemon: it does not keep the process
        await asyncio.wait([task])

    async def _run(self) -> None:
        try:
            self._engine = await _in_thread(self._load)
        except asyncio.CancelledError:
            self._failure = "The server was shut down while the model was loading."
            raise
        except Exception as exc:
            self._failure = str(exc) or type(exc).__name__
            log.log(logging.DEBUG if self._closing else logging.ERROR, "The model cannot be loaded: %s", self._failure)
            log.debug("How loading failed", exc_info=exc)
        finally:
            self._loaded.set()


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
