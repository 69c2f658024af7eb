"""Which engine runs a model."""

from __future__ import annotations

from streams.engine.recurrent.engine import RecurrentEngine
from streams.engine.vllm import EngineOptions, VllmEngine

LoadedEngine = VllmEngine | RecurrentEngine


def load(options: EngineOptions) -> LoadedEngine:
    """Load a model: a directory into vLLM, a GGUF file, which only a recurrent model still is, into llama.cpp. Blocks.

    Raises:
        ModelError: it cannot be loaded.
    """
    return RecurrentEngine.load(options) if options.model.is_file() else VllmEngine.load(options)


def abort_load() -> None:
    """Make a running :func:`load` fail soon."""
    VllmEngine.abort_load()
    RecurrentEngine.abort_load()
