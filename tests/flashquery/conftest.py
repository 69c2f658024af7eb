"""A Redis that comes and goes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from flashquery import events
from service.valkey import embedded_valkey
from streams import journal


class Store:
    """A Valkey server with a client; its data survive :meth:`stop`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._running = AsyncExitStack()
        self._url = ""
        self.redis: Redis

    async def start(self) -> None:
        url = await self._running.enter_async_context(embedded_valkey(self._data_dir))
        if not self._url:
            self._url = url
            self.redis = Redis.from_url(url, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
        assert url == self._url, "clients find it again at the same place"

    async def stop(self) -> None:
        await self._running.aclose()

    def freeze(self) -> None:
        """It accepts connections and says nothing."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        return int((self._data_dir / "valkey" / "valkey.pid").read_text())


@pytest.fixture
async def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A server of the test's own, which is retried at once."""
    monkeypatch.setattr(journal, "_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(events, "_RETRY_SECONDS", 0.01)
    store = Store(tmp_path_factory.mktemp("store"))
    await store.start()
    try:
        yield store
    finally:
        await store.redis.aclose()
        await store.stop()
