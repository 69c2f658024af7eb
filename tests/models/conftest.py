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
from tests.models import mamba_toy, rwkv_toy, toys

SEQUENCES = 12
RECURRENT = ("mamba", "rwkv-6")
ON_VLLM = tuple(name for name in toys.TOYS if not name.startswith("mamba"))

Says = Callable[[Sequence[int], int], tuple[list[int], float]]
"""From a prompt and a number of tokens to the greedy answer, and how far the closest choice in it was ahead."""


@dataclass(slots=True)
class Served:
    """A toy, the engine that has it, and what the answers are measured by.

    Attributes:
        name: of the family.
        architecture: the class of transformers', or llama.cpp's name where there is none.
        says: the reference.
        seen: what its tests found, for the table in the documentation.
    """

    name: str
    architecture: str
    engine: choose.LoadedEngine
    says: Says
    seen: dict[str, str] = field(default_factory=dict)


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=(*ON_VLLM, *RECURRENT))
async def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """Exact arithmetic, and a KV cache that holds a few streams."""
    name: str = request.param
    place = tmp_path_factory.mktemp(name)
    path, architecture, says = _made(name, place)
    options = EngineOptions(model=path, name=name, context=toys.CONTEXT, max_num_seqs=SEQUENCES)
    if name in ON_VLLM:
        options = EngineOptions(model=path, name=name, dtype="float32", kv_cache_bytes=16 << 20, max_num_seqs=SEQUENCES)
    engine = await asyncio.to_thread(choose.load, options)
    yield Served(name, architecture, engine, says)
    await engine.close()


def _made(name: str, place: Path) -> tuple[Path, str, Says]:
    if name == "mamba":
        model = mamba_toy.model()
        return mamba_toy.write(model, place / "toy.gguf"), "MambaForCausalLM", toys.reference(model)
    if name == "rwkv-6":
        return rwkv_toy.build(place / "toy.gguf"), "rwkv6", rwkv_toy.says
    path = toys.build(name, place)
    return path, toys.TOYS[name].model, toys.reference(toys.load(path))
