from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests import apps
from tests.engine.fast import FastEngine


@pytest.fixture
def engine() -> FastEngine:
    return FastEngine()


@pytest.fixture
async def client(redis: Redis, tmp_path: Path, engine: FastEngine) -> AsyncIterator[apps.Client]:
    """The application with default settings."""
    async with apps.serving(redis, tmp_path, engine) as client:
        yield client
