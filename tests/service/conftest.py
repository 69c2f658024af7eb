from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from service.settings import ENV_PREFIX
from tests import apps
from tests.engine.fast import FastEngine


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


@pytest.fixture
def engine() -> FastEngine:
    return FastEngine()


@pytest.fixture
async def client(redis: Redis, tmp_path: Path, engine: FastEngine) -> AsyncIterator[apps.Client]:
    """The application with default settings."""
    async with apps.serving(redis, tmp_path, engine) as client:
        yield client
