from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from streams.manager import Manager
from tests.engine.fast import FastEngine
from tests.streams.kit import Heard, managing


@pytest.fixture
def engine() -> FastEngine:
    return FastEngine()


@pytest.fixture
async def manager(engine: FastEngine) -> AsyncIterator[Manager]:
    async with managing(engine) as manager:
        yield manager


@pytest.fixture
def heard(manager: Manager) -> Heard:
    heard = Heard()
    manager.listen(heard)
    return heard
