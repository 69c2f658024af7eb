"""Every family at toy size, each on the engine that serves it, loaded once for all tests of that family."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from streams.engine import choose
from streams.engine.vllm import EngineOptions
from streams.models import mamba
from tests.models import rwkv_toy, toys

SEQUENCES = 12
RECURRENT = ("mamba", "rwkv-6")
ON_VLLM = tuple(name for name in toys.TOYS if not name.startswith("mamba"))

Behind = Callable[[Sequence[int], Sequence[int]], list[float]]
"""From a prompt and an answer to how far each token of that is behind the most probable one, in logits."""


@dataclass(slots=True)
class Served:
    """A toy, the engine that has it, and what the answers are measured by.

    Attributes:
        name: of the family.
        architecture: the class of transformers', or llama.cpp's name where there is none.
        behind: the reference.
        seen: what its tests found, for the table in the documentation.
    """

    name: str
    architecture: str
    engine: choose.LoadedEngine
    behind: Behind
    seen: dict[str, str] = field(default_factory=dict)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=(*ON_VLLM, *RECURRENT))
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Exact arithmetic, and a KV cache that holds a few streams."""
    name: str = request.param
    place = tmp_path_factory.mktemp(name)
    path, architecture, behind = _made(name, place)
    options = EngineOptions(model=path, name=name, context=toys.CONTEXT, max_num_seqs=SEQUENCES, threads=1)
    if name in ON_VLLM:
        options = EngineOptions(model=path, name=name, dtype="float32", kv_cache_bytes=16 << 20, max_num_seqs=SEQUENCES)
    engine = await asyncio.to_thread(choose.load, options)
    yield Served(name, architecture, engine, behind)
    await engine.close()


def _made(name: str, place: Path) -> tuple[Path, str, Behind]:
    if name == "rwkv-6":
        return rwkv_toy.build(place / "toy.gguf"), "rwkv6", rwkv_toy.behind
    path, toy = toys.build(name, place), toys.TOYS[name]
    if name in RECURRENT:
        file = mamba.convert(path, place / "models", print)
        return file, toy.model, toys.reference(toys.load(path))
    return path, toy.model, toys.reference(toys.load(path, **toy.trained))
