from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from service.logs import placed
from service.settings import ENV_PREFIX
from tests import apps
from tests.engine.fast import FastEngine


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


Lines = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """The lines of the log that say something, with all that the server's own handler would tell of them."""

    def found(text: str) -> list[dict[str, Any]]:
        return [vars(record) for record in caplog.records if text in record.getMessage()]

    caplog.handler.addFilter(placed)
    yield found
    caplog.handler.removeFilter(placed)


@pytest.fixture
def engine() -> FastEngine:
    return FastEngine()


@pytest.fixture
async def client(redis: Redis, tmp_path: Path, engine: FastEngine) -> AsyncIterator[apps.Client]:
    """The application with default settings."""
    async with apps.serving(redis, tmp_path, engine) as client:
        yield client
