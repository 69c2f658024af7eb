"""A server process that is started again whenever it dies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from streams.errors import Unavailable

log = logging.getLogger(__name__)

# There is no last attempt: what keeps it from starting, a full disk say, may be mended by somebody.
_FIRST_PAUSE_SECONDS: Final = 0.1
_PAUSE_SECONDS_MAX: Final = 10.0
# One that lived this long has not died of its start.
_SOUND_SECONDS: Final = 60.0


class Kept:
    """The embedded Valkey, as long as the context lasts. Use as an async context manager: it owns process and task.

    Args:
        process: it, running.
        start: runs it anew and waits until it answers; raises Unavailable or OSError if it does not.
        last_words: what it logged in the end.
        stop_seconds: how long it gets to write everything out before it is killed.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        start: Callable[[], Awaitable[asyncio.subprocess.Process]],
        last_words: Callable[[], str],
        stop_seconds: float,
    ) -> None:
        self._process = process
        self._start = start
        self._last_words = last_words
        self._stop_seconds = stop_seconds
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Kept:
        self._task = asyncio.create_task(self._keep(), name="valkey-keeper")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await stop(self._process, self._stop_seconds)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = loop.time()
            code = await self._process.wait()
            log.error(
                "the embedded Valkey died with status %d: nothing is stored until it is back; %s",
                code,
                self._last_words(),
            )
            if loop.time() - started > _SOUND_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            pause = await self._restart(pause)
            log.info("the embedded Valkey is back")

    async def _restart(self, pause: float) -> float:
        """Try until it answers, the first time after ``pause`` seconds; the pause before the next restart."""
        told = False
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_SECONDS_MAX)
            try:
                self._process = await self._start()
                return pause
            except (Unavailable, OSError) as error:
                if not told:
                    log.error("the embedded Valkey cannot be started again, which is tried on and on: %s", error)
                told = True


async def stop(process: asyncio.subprocess.Process, seconds: float) -> None:
    """End a process: with SIGTERM, and ``seconds`` later with SIGKILL."""
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        log.warning("the embedded Valkey did not end in time and is killed")
        process.kill()
        await process.wait()
