"""What several packages' tests need: a real Valkey, a model, and a real engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.valkey import embedded_valkey
from streams import journal
from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.vllm import EngineOptions, VllmEngine
from streams.models import resolve
from streams.store import connect
from tests.engine.models import shallow
from tests.losing import Losing
from tests.models import rwkv_toy

# Where several processes share the cores, threads of an engine would wait for each other most of the time: a layer is
# done when the last of them has had its turn. Beside a busy process, two take six times as long as one.
if count := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))

# How fast an example runs says more about what else the machine does.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


_LOADS_A_MODEL = {"VllmEngine", "REAL", "vllm_engine", "quick_engine"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what loads a model run one after another, in one of the processes, and the rest beside it, file by file.

    Toys are no burden, and run with the rest.
    """
    for item in items:
        assert isinstance(item, pytest.Function)
        names = {*vars(item.module), *item.fixturenames}
        loads = not names.isdisjoint(_LOADS_A_MODEL) or item.path.parent.name == "clients"
        fast = hasattr(item, "callspec") and "fast" in item.callspec.params.values()
        item.add_marker(pytest.mark.xdist_group("engine" if loads and not fast else str(item.path)))


@pytest_asyncio.fixture(scope="session")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A Valkey server of the test session's own."""
    async with embedded_valkey(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client that returns bytes, of an empty server."""
    async with connect(redis_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def losing(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Losing]:
    """A client of the same server that loses replies when it is told to, and is retried at once."""
    monkeypatch.setattr(journal, "_RETRY_SECONDS", 0.01)
    async with Losing.from_url(redis_url, retry=Retry(NoBackoff(), 1)) as client:
        yield client


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the default model, or of ``ASKAHEAD_TEST_MODEL``."""
    if path := os.environ.get("ASKAHEAD_TEST_MODEL"):
        return Path(path)
    return resolve(None, data_dir=tmp_path_factory.mktemp("data"), progress=print).path


@pytest.fixture(scope="session")
def engine_options(model_path: Path) -> EngineOptions:
    """A real engine that is small enough to reach its limits in a test, and exact on every processor."""
    return EngineOptions(
        model=model_path, name="real", context=2560, dtype="float32", kv_cache_bytes=768 << 20, max_num_seqs=64, nice=3
    )


@pytest_asyncio.fixture(scope="session")
async def vllm_engine(engine_options: EngineOptions) -> AsyncIterator[VllmEngine]:
    """The real engine, loaded once for all tests, beside the running loop as the server does it."""
    engine = await asyncio.to_thread(VllmEngine.load, engine_options)
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="session")
async def quick_engine(
    engine_options: EngineOptions, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[VllmEngine]:
    """The same with four layers, for tests in which it has tens of thousands of tokens to compute."""
    model = shallow(engine_options.model, tmp_path_factory.mktemp("shallow"), layers=4)
    engine = await asyncio.to_thread(VllmEngine.load, replace(engine_options, model=model, context=5120))
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def recurrent_options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    """A recurrent toy, with few states: tests are to see what happens when there are none left."""
    model = rwkv_toy.build(tmp_path_factory.mktemp("rwkv") / "toy.gguf")
    return EngineOptions(model=model, name="recurrent", context=2560, threads=1, max_num_seqs=12, nice=7)


@pytest_asyncio.fixture(scope="session")
async def recurrent_engine(recurrent_options: EngineOptions) -> AsyncIterator[RecurrentEngine]:
    """It is loaded once for all tests."""
    engine = await asyncio.to_thread(RecurrentEngine.load, recurrent_options)
    yield engine
    await engine.close()
